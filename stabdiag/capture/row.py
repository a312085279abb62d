"""What a probe hands over at the end of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stabdiag.core.site import Site

Arrays = Mapping[str, NDArray[np.float32]]


class Row(NamedTuple):
    """One row of one kind: statistic -> [sites]."""

    kind: str
    sites: Sequence[Site]
    columns: Mapping[str, NDArray[np.float32]]


@dataclass
class Measured:
    """Rows to be written, and numbers about the step as a whole that go into the run's own row."""

    rows: list[Row] = field(default_factory=list)
    scalars: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Harvest:
    """`tensors` travel to the host; `finish` makes rows of them there, given the step's loss scale."""

    tensors: Mapping[str, torch.Tensor]
    finish: Callable[[Arrays, float], Measured]


def under(prefix: str, arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    """The entries whose key begins with `prefix`, without it."""
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
