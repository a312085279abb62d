"""What became of a run when it was replayed with its fixes applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stabdiag.core.diagnosis import Diagnosis, FixAdvice, Mark
from stabdiag.core.finding import plain

SCHEMA = "stabdiag.verification/1"
RANK = {"verified": 0, "did not help": 2, "made it worse": 3}
UNTOLD = 1
UNCHANGED, PLACEBO = "unchanged", "placebo"


@dataclass(frozen=True, slots=True)
class Trial:
    """One replay. `id` is `unchanged`, `placebo` or the fix, `apply` what was applied, as on the command
    line, and `runtime` the advice that it was made from.

    `mark` is `verified`, `did not help`, `made it worse`, or `not told`; empty for the unchanged replay.
    `recovery` is R = (L_fault - L_fix) / (L_fault - L_healthy), None where the loss tells nothing; `level`
    the loss at the horizon, None where it is no finite number. `verdict` and `findings` (warnings and worse)
    are the analyzer's on the replay, up to the horizon; `step_time` is in seconds (median), `acted` counts
    what the interventions did.
    """

    id: str
    apply: tuple[str, ...] = ()
    runtime: Mapping[str, float] = field(default_factory=dict)
    mark: str = ""
    because: str = ""
    recovery: float | None = None
    level: float | None = None
    verdict: str = ""
    findings: tuple[str, ...] = ()
    steps: int = 0
    step_time: float | None = None
    exit_status: int | None = None
    signal: str | None = None
    acted: Mapping[str, int] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """`horizon` is the number of steps that were replayed. `same_until` is the step before which the
    unchanged replay had the very losses of the run. `again`: whether the failure came again in it.

    `fault` and `healthy` are the two levels of the loss at the horizon that recovery is measured between,
    `against` says what the healthy one is. `untried` are fixes that need a change of code.
    """

    horizon: int
    same_until: int
    again: bool
    fault: float | None
    healthy: float | None
    against: str
    trials: tuple[Trial, ...]
    untried: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = plain({"schema": SCHEMA, **asdict(self)})
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Verification:
        values = {key: value for key, value in record.items() if key != "schema"}
        trials = tuple(
            Trial(**{**t, "apply": tuple(t["apply"]), "findings": tuple(t["findings"])})
            for t in values["trials"]
        )
        return cls(**{**values, "trials": trials, "untried": tuple(values["untried"])})

    def trial(self, id: str) -> Trial | None:
        return next((trial for trial in self.trials if trial.id == id), None)


def marked(diagnosis: Diagnosis, verification: Verification | None) -> Diagnosis:
    """With the marks of the fixes that were tried as they are advised now, by the same numbers: those that
    are verified first, those that do harm last."""
    if verification is None:
        return diagnosis
    tried = {(t.id, _numbers(t.runtime)): Mark(t.mark, t.recovery) for t in verification.trials if t.mark}

    def with_mark(fix: FixAdvice) -> FixAdvice:
        return replace(fix, mark=tried.get((fix.id, _numbers(fix.runtime))))

    def sorted_by_mark(fixes: Sequence[FixAdvice]) -> tuple[FixAdvice, ...]:
        return tuple(sorted(map(with_mark, fixes), key=_rank))

    incidents = tuple(replace(i, fixes=sorted_by_mark(i.fixes)) for i in diagnosis.incidents)
    return replace(diagnosis, incidents=incidents)


def _rank(fix: FixAdvice) -> int:
    return RANK.get(fix.mark.result, UNTOLD) if fix.mark is not None else UNTOLD


def _numbers(runtime: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((key, float(f"{value:.6g}")) for key, value in runtime.items()))
