"""Whether a change undid a fault: by the loss that was reached, and by what the analyzer still finds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Severity
from stabdiag.core.run import MissingSeries, Run

CURED = 0.8
"""The share of the damage that a cure undoes, as fixes are scored in the benchmark."""

LEAST_TREND = 20
"""Losses before the onset that a trend needs."""

TREND = 200
"""Steps before the onset that it is taken from, at most."""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What recovery is measured between: the loss with the fault, and without. `against` says what the
    latter is, `margin` which difference of two levels noise alone makes."""

    fault: float | None
    healthy: float | None
    against: str
    margin: float
    worst: float
    """Stands for a loss that is no finite number."""

    def recovery(self, level: float | None) -> float | None:
        """(L_fault - L_fix) / (L_fault - L_healthy); None where the loss shows no damage."""
        if self.healthy is None:
            return None
        fault = self.worst if self.fault is None else self.fault
        damage = fault - self.healthy
        if damage <= self.margin:
            return None
        return (fault - (max(self.worst, fault) if level is None else level)) / damage

    def worse(self, level: float | None) -> bool:
        """Whether that is worse than the fault, and than without it, beyond noise and a tenth of the damage:
        some faults lower the loss."""
        if self.fault is None:
            return False
        healthy = self.fault if self.healthy is None else self.healthy
        bad = max(self.fault, healthy)
        return level is None or level - bad > max(self.margin, 0.1 * (self.fault - healthy))


def level_at(run: Run, horizon: int) -> float | None:
    """The median loss of the last tenth before step `horizon`, of 5 to 50 steps; None where most of it is
    not finite, or nothing was recorded."""
    losses = _losses(run, horizon)
    last = losses[-min(max(horizon // 10, 5), 50) :]
    finite = last[np.isfinite(last)]
    return float(np.median(finite)) if 2 * len(finite) > len(last) else None


def trend_at(run: Run, onset: int, horizon: int) -> float | None:
    """Where the loss was heading at `onset`: a robust line over the logarithm of the step, which is what
    healthy losses fall along. A loss that was rising stays where it was; one that fell goes no further down
    than it came within the window. None with too few steps before the onset."""
    losses = _losses(run, onset)[-TREND:]
    steps = np.arange(onset - len(losses), onset)
    known = np.isfinite(losses)
    if known.sum() < LEAST_TREND:
        return None
    x, y = np.log1p(steps[known]), losses[known]
    third = max(len(y) // 3, 1)
    first, last = float(np.median(y[:third])), float(np.median(y[-third:]))
    reach = float(np.median(x[-third:]) - np.median(x[:third]))
    slope = min((last - first) / reach, 0.0) if reach > 0 else 0.0
    ahead = last + slope * (math.log1p(horizon) - float(np.median(x[-third:])))
    return max(ahead, last - max(first - last, 0.0))


def _losses(run: Run, end: int) -> np.ndarray:
    if "run.loss" not in run:
        return np.empty(0)
    table = run.table("run.loss")
    return table.first()[table.steps < end].astype(np.float64)


def yardstick(
    fault: Run, onset: int, horizon: int, healthy: Run | None, replayed: Iterable[tuple[Run, float | None]]
) -> Yardstick:
    """`replayed` are the replays with changes and the levels that they reached: the best of them serves where
    nothing tells what a healthy run would have."""
    losses = _losses(fault, horizon)
    finite = losses[np.isfinite(losses)]
    worst = float(finite.max()) if len(finite) else 0.0
    level, trend = level_at(fault, horizon), trend_at(fault, onset, horizon)
    if healthy is not None:
        name = healthy.path.name if healthy.path else ""
        return Yardstick(
            level, level_at(healthy, horizon), f"the healthy run {name}", _margin(healthy), worst
        )
    if trend is not None:
        before = _margin(fault.window(0, onset - 1))
        return Yardstick(level, trend, f"its trend before step {onset}", before, worst)
    reached = [(value, run) for run, value in replayed if value is not None]
    if not reached:
        return Yardstick(level, None, "nothing", 0.0, worst)
    best, run = min(reached, key=lambda pair: pair[0])
    return Yardstick(level, best, "the best of the replays", _margin(run), worst)


def _margin(calm: Run) -> float:
    try:
        return loss_curve(calm).margin
    except (NotEvaluable, MissingSeries):
        return 0.0


def alarms(diagnosis: Diagnosis) -> dict[str, Severity]:
    """Signature -> severity of the findings above `info`."""
    found: dict[str, Severity] = {}
    for finding in diagnosis.findings:
        if finding.severity > Severity.info:
            found[finding.signature] = max(finding.severity, found.get(finding.signature, Severity.info))
    return found


def of_updates(diagnosis: Diagnosis, run: Run) -> Diagnosis:
    """`diagnosis` of `run` without the findings that were worst in a step whose update an intervention left
    out: the loss of a batch that is skipped is as high as before, and does no more harm."""
    withheld = {e.step for e in run.events_of("intervention") if e.data.get("action") == "skipped"}
    kept = tuple(finding for finding in diagnosis.findings if finding.peak_step not in withheld)
    return replace(diagnosis, findings=kept, incidents=())


@dataclass(frozen=True, slots=True)
class Judgement:
    mark: str
    because: str


def judge(
    found: Diagnosis, before: Diagnosis, fault: Collection[str], recovery: float | None, worse: bool
) -> Judgement:
    """`found` is the diagnosis of the replay with the change, `before` that of the one without, `fault` the
    signatures of what the change is meant to cure.

    A cure undoes the damage and raises no new alarm. Where the loss shows no damage, none of the findings may
    be left; where it does and has recovered, none that is critical: gradients that are clipped are as large
    as before.
    """
    now, then = alarms(found), alarms(before)
    new = [s for s, severity in now.items() if severity > then.get(s, Severity.info) and s not in fault]
    still = [s for s in now if s in fault]
    left = [s for s in still if recovery is None or now[s] is Severity.critical]
    if worse:
        return Judgement("made it worse", "the loss is higher than without it")
    if found.verdict == "failed" and before.verdict != "failed":
        return Judgement("made it worse", "the replay failed, as it did not without it")
    if recovery is not None and recovery < CURED:
        undone = f"by {100 * recovery:.0f} %" if recovery >= 0.005 else "not at all"
        return Judgement("did not help", f"the loss recovered {undone}")
    if left or new:
        said = f"{_are(left or new)} {'still there' if left else 'new'}"
        return Judgement("did not help", f"{', '.join(left or new)} {said}")
    gone = "the findings are gone" if not still else f"{', '.join(still)} {_are(still)} still there"
    if recovery is not None:
        gone = f"the loss recovered, though {gone}" if still else f"{gone}, and the loss recovered"
    return Judgement("verified", gone)


def _are(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
