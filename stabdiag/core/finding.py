"""A finding: one occurrence of a signature in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

from stabdiag.core.html import finding_html, findings_html


class Severity(IntEnum):
    """`critical`: training has failed or will. `warning`: it will get worse, or the run is being
    wasted. `info`: worth knowing."""

    info = 0
    warning = 1
    critical = 2

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Evidence:
    """What to draw: a series at some sites, against the threshold, and its own healthy band.

    `band` is (low, high) of the same series while the run was healthy.
    """

    series: str
    sites: tuple[str, ...] = ()
    threshold: float | None = None
    band: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True, slots=True)
class CauseRanked:
    """A cause with the share of belief that the evidence gives it, in 0..1, and that evidence."""

    id: str
    confidence: float
    because: str


@dataclass(frozen=True, slots=True)
class Finding:
    """`sites` are ordered, the most telling first; steps are optimizer steps, counted from 0.

    `facts` are the numbers that causes and fixes are weighed and worded with. A detector fills
    everything but `signature`, `causes` and `fixes`, which the engine adds.
    """

    severity: Severity
    confidence: float
    sites: tuple[str, ...]
    onset_step: int
    peak_step: int
    last_step: int
    message: str
    value: float | None = None
    threshold: float | None = None
    evidence: tuple[Evidence, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    signature: str = ""
    causes: tuple[CauseRanked, ...] = ()
    fixes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return finding_html(self)

    def to_json(self) -> dict[str, Any]:
        """The design's schema; non-finite numbers become null, which JSON can say."""
        record = asdict(self)
        record["severity"] = str(self.severity)
        record["facts"] = dict(self.facts)
        return {key: plain(value) for key, value in record.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Finding:
        values = dict(record)
        values["severity"] = Severity[values["severity"]]
        values["sites"] = tuple(values["sites"])
        values["fixes"] = tuple(values["fixes"])
        values["causes"] = tuple(CauseRanked(**c) for c in values["causes"])
        values["evidence"] = tuple(
            Evidence(
                series=e["series"],
                sites=tuple(e["sites"]),
                threshold=e["threshold"],
                band=tuple(e["band"]) if e["band"] else None,
                log=e["log"],
            )
            for e in values.get("evidence", ())
        )
        return cls(**values)


class Findings(tuple[Finding, ...]):
    """Findings that a notebook shows as cards."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return findings_html(self)


def plain(value: Any) -> Any:
    """`value` with tuples as lists and non-finite floats as None, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value
