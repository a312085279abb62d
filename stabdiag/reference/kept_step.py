"""A step of a flight record: the random state that it began with, and what the model was called with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open


def row_of(path: str | Path, step: int) -> Any:
    """The row of a step in a record's steps.npy. Nothing in it is ever unpickled."""
    rows = np.load(path, allow_pickle=False)
    return rows[rows["step"] == step][0]


def restore_random(row: Any) -> None:
    """Each generator as it was when the step first called the model. Those of Python and numpy stay where
    they are, if theirs was not kept: then something was drawn from them near the step."""
    torch.set_rng_state(torch.from_numpy(row["torch"].copy()))
    if row["cuda"].size:
        torch.cuda.set_rng_state_all([torch.from_numpy(state.copy()) for state in row["cuda"]])
    if row["python"].any():
        held = float(row["python_gauss"])
        random.setstate((3, tuple(map(int, row["python"])), None if np.isnan(held) else held))
    if row["numpy"].any():
        *keys, position = row["numpy"]
        held = float(row["numpy_gauss"])
        normal = (0, 0.0) if np.isnan(held) else (1, held)
        np.random.set_state(("MT19937", np.array(keys, np.uint32), int(position), *normal))


def calls_of(path: str | Path, device: Any = "cpu") -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """(arguments, named arguments) of each call of the step. What could not be kept is NotImplemented."""
    with safe_open(path, "pt", device=str(device)) as file:

        def value(told: dict[str, Any]) -> Any:
            ((kind, it),) = told.items()
            if kind == "tensor":
                return file.get_tensor(it)
            if kind in ("list", "tuple"):
                values = [value(item) for item in it]
                return values if kind == "list" else tuple(values)
            if kind == "dict":
                return {key: value(item) for key, item in it}
            return it if kind == "value" else NotImplemented

        for call in json.loads(file.metadata()["calls"]):
            named = {name: value(item) for name, item in call["kwargs"].items()}
            yield [value(item) for item in call["args"]], named
