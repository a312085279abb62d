"""A diagnosis: the findings of a run, folded into incidents, with one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stabdiag.core.finding import CauseRanked, Finding, Severity, plain
from stabdiag.core.html import diagnosis_html, incident_html

SCHEMA = "stabdiag.report/1"
VERDICTS = ("stable", "at-risk", "unstable", "failed")


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a fix when `stabdiag verify` tried it: `verified`, `did not help`, `made it worse` or
    `not told`; and by which part it undid the fault, None where the loss does not tell."""

    result: str
    recovery: float | None = None


@dataclass(frozen=True, slots=True)
class FixAdvice:
    """A fix worded for this run: `change` with its numbers, `code` for plain PyTorch.

    `runtime` is what the recorder could apply by itself while training, empty where it could not. `mark` is
    None where it was not tried.
    """

    id: str
    title: str
    change: str
    code: str
    runtime: Mapping[str, float] = field(default_factory=dict)
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class FirstMover:
    """The statistic that left its own healthy `band` (low, high) first, at `site`.

    `step` is the first recorded one outside the band, `within` the last one inside: it left between the
    two. `lead` counts the steps from `step` until the loss left its own band, negative where the loss
    was recorded outside earlier; None where the loss never showed it.
    """

    series: str
    site: str
    step: int
    within: int
    value: float
    band: tuple[float, float]
    lead: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch of `step`; `fingerprint` tells it among others, None where it was not taken. `again` are
    the other steps at which the same one was recorded."""

    step: int
    fingerprint: int | None = None
    again: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Culprit:
    """What an incident is pinned on, as narrowly as is known; empty or None where it is not.

    `source` is `file:line` of the class: of the module itself, or, where that comes with torch, of the
    nearest module around it that does not.
    """

    module: str = ""
    module_type: str = ""
    parameter: str = ""
    head: int | None = None
    expert: int | None = None
    source: str = ""
    rank: int | None = None
    batch: Batch | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """The findings that one root explains; `root` and `findings` index `Diagnosis.findings`. No `cause`
    means that it is unknown."""

    severity: Severity
    root: int
    findings: tuple[int, ...]
    onset_step: int
    cause: CauseRanked | None
    fixes: tuple[FixAdvice, ...]
    first_mover: FirstMover | None = None
    culprit: Culprit | None = None

    def consequences(self, root: Finding) -> str:
        """`with critical consequences` where what followed is worse than `root`, its root; else empty."""
        return f"with {self.severity} consequences" if self.severity > root.severity else ""

    def _repr_html_(self) -> str:
        return incident_html(self)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A signature that could not be evaluated, and why."""

    signature: str
    because: str


@dataclass(frozen=True)
class Diagnosis:
    """Incidents and findings are ranked, most important first. `run` is the report's run block."""

    verdict: str
    incidents: tuple[Incident, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    run: Mapping[str, Any]

    @property
    def critical(self) -> str:
        """The first critical finding and its onset, empty where there is none."""
        found = (f for f in self.findings if f.severity is Severity.critical)
        return next((f"{f.signature} since step {f.onset_step}" for f in found), "")

    def _repr_html_(self) -> str:
        return diagnosis_html(self)

    def to_json(self) -> dict[str, Any]:
        """The contract of `--format json` and `findings.json`."""
        return {
            "schema": SCHEMA,
            "run": plain(dict(self.run)),
            "verdict": self.verdict,
            "incidents": [
                plain({**asdict(incident), "severity": str(incident.severity)}) for incident in self.incidents
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Diagnosis:
        return cls(
            verdict=record["verdict"],
            incidents=tuple(_incident(i) for i in record["incidents"]),
            findings=tuple(Finding.from_json(f) for f in record["findings"]),
            skipped=tuple(Skipped(**s) for s in record["skipped"]),
            run=record["run"],
        )


def _incident(record: Mapping[str, Any]) -> Incident:
    """Reports of older versions say nothing of the first mover and the culprit."""
    return Incident(
        severity=Severity[record["severity"]],
        root=record["root"],
        findings=tuple(record["findings"]),
        onset_step=record["onset_step"],
        cause=CauseRanked(**record["cause"]) if record["cause"] else None,
        fixes=tuple(_advice(f) for f in record["fixes"]),
        first_mover=_first_mover(record.get("first_mover")),
        culprit=_culprit(record.get("culprit")),
    )


def _first_mover(record: Mapping[str, Any] | None) -> FirstMover | None:
    if record is None:
        return None
    value, low, high = (float("nan") if v is None else v for v in (record["value"], *record["band"]))
    return FirstMover(**{**record, "value": value, "band": (low, high)})


def _culprit(record: Mapping[str, Any] | None) -> Culprit | None:
    if record is None:
        return None
    batch = record["batch"]
    known = Batch(batch["step"], batch["fingerprint"], tuple(batch["again"])) if batch else None
    return Culprit(**{**record, "batch": known})


def _advice(record: Mapping[str, Any]) -> FixAdvice:
    mark = record.get("mark")
    return FixAdvice(**{**record, "mark": Mark(**mark) if mark else None})
