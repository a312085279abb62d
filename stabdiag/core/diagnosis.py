"""A diagnosis: the findings of a run, folded into incidents, with one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stabdiag.core.finding import CauseRanked, Finding, Severity, plain

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
class Incident:
    """The findings that one root explains; `root` and `findings` index `Diagnosis.findings`."""

    severity: Severity
    root: int
    findings: tuple[int, ...]
    onset_step: int
    cause: CauseRanked | None
    fixes: tuple[FixAdvice, ...]


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
        incidents = tuple(
            Incident(
                severity=Severity[i["severity"]],
                root=i["root"],
                findings=tuple(i["findings"]),
                onset_step=i["onset_step"],
                cause=CauseRanked(**i["cause"]) if i["cause"] else None,
                fixes=tuple(_advice(f) for f in i["fixes"]),
            )
            for i in record["incidents"]
        )
        return cls(
            verdict=record["verdict"],
            incidents=incidents,
            findings=tuple(Finding.from_json(f) for f in record["findings"]),
            skipped=tuple(Skipped(**s) for s in record["skipped"]),
            run=record["run"],
        )


def _advice(record: Mapping[str, Any]) -> FixAdvice:
    mark = record.get("mark")
    return FixAdvice(**{**record, "mark": Mark(**mark) if mark else None})
