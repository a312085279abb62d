"""What a recorded kind is called, and the units of its statistics: a file in `kinds/`.

A kind without one is shown all the same, under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stabdiag.core.registry import Registry

NONFINITE = "non-finite values or calls"
OWN = "as the tensor"
"""The unit of what is in that of the tensor itself, which nobody knows: no word for an axis."""


@dataclass(frozen=True)
class Kind:
    """`units` has every statistic (by name or glob), with its unit or what it counts."""

    id: str
    title: str
    units: Mapping[str, str]
    note: str = ""


KINDS: Registry[Kind] = Registry("kind", "stabdiag.render.kinds")


def kind_of(id: str) -> Kind:
    return KINDS[id] if id in KINDS else Kind(id, id.replace("_", " ").capitalize(), {})


def unit_of(series: str) -> str:
    """The unit of a series, empty where no kind names it."""
    kind, _, statistic = series.partition(".")
    if statistic == "nonfinite":
        return NONFINITE
    units = kind_of(kind).units
    return next((units[pattern] for pattern in units if fnmatchcase(statistic, pattern)), "")


def axis_unit(series: str) -> str:
    """The unit as it stands at an axis, empty where there is none to tell."""
    unit = unit_of(series)
    return "" if unit == OWN else unit


def with_unit(series: str) -> str:
    """`attention.entropy (nats)`."""
    unit = axis_unit(series)
    return f"{series} ({unit})" if unit else series
