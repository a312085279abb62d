"""Runs made of arrays: what the examples beside the signatures, and the tests, are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from stabdiag.core.event import Event
from stabdiag.core.run import KindData, Run, RunInfo
from stabdiag.core.site import Site


def run_of(
    series: Mapping[str, ArrayLike],
    *,
    sites: Mapping[str, Sequence[Site | str]] | None = None,
    steps: Mapping[str, ArrayLike] | None = None,
    events: Sequence[Event] = (),
    info: RunInfo | None = None,
) -> Run:
    """A run that holds `series`: name -> [steps] or [steps, sites], any real dtype.

    `sites` names the sites of a kind (default: `run` for one column, else `layers.<i>`, in forward
    order); `steps` gives the steps of a kind (default: 0, 1, 2, …). One second passes a step.
    All series of a kind have the same shape.
    """
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, values in series.items():
        kind, _, statistic = name.partition(".")
        array = np.asarray(values, dtype=np.float32)
        grouped.setdefault(kind, {})[statistic] = array[:, None] if array.ndim == 1 else array
    kinds = {}
    for kind, columns in grouped.items():
        count, width = next(iter(columns.values())).shape
        named = (sites or {}).get(kind) or (["run"] if width == 1 else [f"layers.{i}" for i in range(width)])
        full = tuple(s if isinstance(s, Site) else Site(kind, s, order=i) for i, s in enumerate(named))
        at = np.asarray((steps or {}).get(kind, np.arange(count)), dtype=np.int64)
        kinds[kind] = KindData(at, at.astype(np.float64), full, columns)
    return Run(info or RunInfo(), kinds, tuple(events))
