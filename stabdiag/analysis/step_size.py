"""How large the steps were: the learning rate, its schedule, and the updates that it made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.history import History, history
from stabdiag.analysis.memory import once
from stabdiag.analysis.successors import continued
from stabdiag.core.run import Run

HEALTHY_RATIO = 0.03
"""Median update ratio of the weight matrices below which healthy runs stay once warm: the 95th
percentile was at most 0.027 over small transformers, MLPs, CNNs and LSTMs."""

USUAL_RATIO = 0.003
"""Where it lies in most of them: 1.5e-3 to 3e-3 in MLPs, CNNs and LSTMs, up to 2e-2 in small
transformers."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of the first parameter group, in 1."""

    rate: History

    @property
    def peak(self) -> float:
        return float(np.max(self.rate.values, initial=0.0))

    @property
    def warmup(self) -> int:
        """Number of steps before the rate first reached its peak (99 % of it)."""
        reached = np.flatnonzero(self.rate.values >= 0.99 * self.peak)
        return int(self.rate.steps[reached[0]]) if len(reached) else 0

    def at(self, step: int) -> float | None:
        return self.rate.at(step)

    def rising(self, step: int) -> bool:
        now, earlier = self.rate.at(step), self.rate.at(max(step - 3, 0))
        return now is not None and earlier is not None and now > earlier * 1.001

    def changes(self, step: int) -> bool:
        """Whether the rate just after `step` is another than just before it, by more than 1.4 or to less than
        0.7; False where it is not known."""
        before, now = self.at(step - 2), self.at(step + 1)
        return before is not None and now is not None and not 0.7 * before <= now <= 1.4 * before

    def jump(self, first: int, last: int) -> tuple[int, float, float] | None:
        """The most abrupt change of a step within first..last: the step, the rate before, the rate
        after. Only changes by a factor above 1.5, or below 1/20, are abrupt: a decay by 10 is a
        common milestone. The first 5 steps of a linear warm-up are steep and do not count."""
        rate = self.rate.within(max(first - 1, 0), last).finite()
        before, after = rate.values[:-1], rate.values[1:]
        usable = (before > 0) & (after > 0) & (rate.steps[:-1] >= 5)
        factor = np.where(usable, after / np.where(before > 0, before, 1.0), 1.0)
        abrupt = np.where((factor > 1.5) | (factor < 0.05), np.abs(np.log(factor)), 0.0)
        if not len(abrupt) or not abrupt.any():
            return None
        at = int(np.argmax(abrupt))
        return int(rate.steps[at + 1]), float(before[at]), float(after[at])


@once
def schedule(run: Run) -> Schedule:
    if "run.lr" not in run or not run.table("run.lr").sites:
        return Schedule(history(run, "run.lr"))
    steps = run.table("run.lr").steps
    return Schedule(History(steps, continued(run, steps).astype(np.float64)).finite())


def matrix_ratio(run: Run, first: int, last: int) -> History:
    """Median over the weight matrices of `update.ratio` at the recorded steps of first..last.

    Vectors are left out: a zero-initialised bias has a ratio of 1e9 at its first step.
    """
    if "update.ratio" not in run:
        return history(run, "update.ratio")
    table = run.window(first, last).table("update.ratio")
    matrices = [len(site.shape) >= 2 or not site.shape for site in table.sites]
    values = np.where(np.isfinite(table.values), table.values, np.nan)[:, matrices].astype(np.float64)
    measured = ~np.isnan(values).all(axis=1) if values.size else np.zeros(len(table.steps), dtype=bool)
    return History(table.steps[measured], np.nanmedian(values[measured], axis=1))


def ratio_near(run: Run, step: int, reach: int = 50) -> tuple[int, float] | None:
    """The step and the largest median update ratio in the `reach` steps up to `step`.

    The first step of all is left out where there is another: it is large in every run that starts
    without a warm-up, because Adam's first update is the learning rate itself.
    """
    ratios = matrix_ratio(run, max(step - reach, 0), step + 2)
    late = ratios.within(1, step + 2)
    return (late if len(late) else ratios).peak(0, step + 2)


def second_beta(run: Run) -> float | None:
    """Adam's decay of the second moment."""
    groups = run.fact("optimizer", "groups") or [{}]
    betas = groups[0].get("betas") if isinstance(groups[0], dict) else None
    return float(betas[1]) if isinstance(betas, list | tuple) and len(betas) > 1 else None


def weight_decay(run: Run) -> float | None:
    """The largest weight decay of any parameter group."""
    groups = run.fact("optimizer", "groups") or []
    values = [g.get("weight_decay") for g in groups if isinstance(g, dict)]
    return max((float(v) for v in values if isinstance(v, int | float)), default=None)


def decoupled_decay(run: Run) -> float:
    """The same, of an optimizer that takes the share lr · λ off a weight at each step, beside what the
    gradient does; 0 of one that does not, or does not tell."""
    decouples = run.fact("optimizer", "name") in ("AdamW", "Lion", "Muon")
    return (weight_decay(run) or 0.0) if decouples else 0.0
