"""What two runs have in common, where they part, and what followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stabdiag.core.finding import Finding, plain

SCHEMA = "stabdiag.comparison/1"

VERDICTS = ("identical", "same", "part", "unpaired", "incomparable")
"""`same`: they differ, but never beyond their own noise. `unpaired`: they began with other weights or other
batches, so that only their levels can be compared."""


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step at which one series differs at one site.

    `step` is the first recorded one apart, `within` the last one together before it (-1 where there is
    none), `until` the last one apart. `a` and `b` are the values at `step`, infinite where not finite.
    `excess` is how far they lie apart there, in widths of their common noise (apart is 1 or more), None
    where the series is compared exactly. `sites` of the `of` compared sites of the series part at all.
    """

    series: str
    site: str
    step: int
    within: int
    until: int
    a: float
    b: float
    excess: float | None = None
    module_type: str = ""
    source: str = ""
    sites: int = 1
    of: int = 1


@dataclass(frozen=True, slots=True)
class Level:
    """The median of a series at a site over the last half of the run, with the half-width of its own
    band there (of 9 in 10 values), in run a and in run b; `beyond`: the bands do not touch. `noise` is the
    median distance of the two at equal steps, in widths of their common noise."""

    series: str
    site: str
    a: float
    b: float
    band_a: float
    band_b: float
    beyond: bool
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that is not the same of both: `learning rate`, `0.002`, `0.006`; empty where there is none."""

    what: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class OnlyOne:
    """What one run has and the other lacks. `sites` maps a kind to its sites; `findings` are those that the
    other has nowhere in common."""

    series: tuple[str, ...]
    sites: Mapping[str, tuple[str, ...]]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Comparison:
    """`a` and `b` name the runs.

    `identical_until` is the last step up to which all that both recorded is the same to the bit, None where
    not even the first is; `values` counts what was compared so. `first_bit` is the first difference at all,
    `first` the first one beyond noise, and `followed` the first of each other series.
    """

    a: str
    b: str
    steps: tuple[int, int]
    values: int
    verdict: str
    identical_until: int | None
    first_bit: Parting | None
    first: Parting | None
    followed: tuple[Parting, ...]
    levels: tuple[Level, ...]
    settings: tuple[Difference, ...]
    only_a: OnlyOne
    only_b: OnlyOne
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `stabdiag compare --format json`; non-finite numbers become null."""
        record = {"schema": SCHEMA, **asdict(self)}
        for side, only in (("only_a", self.only_a), ("only_b", self.only_b)):
            record[side] = {**asdict(only), "findings": [finding.to_json() for finding in only.findings]}
        plainly: dict[str, Any] = plain(record)
        return plainly
