"""The training loss as a curve with a level, a noise and a best: what "harm" is measured on.

Nothing here depends on the unit or the sign of the loss: every distance is compared with the run's
own noise and its own progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.incomparable import incomparable
from stabdiag.analysis.memory import once
from stabdiag.analysis.robust import Doubles, spread, trailing_median
from stabdiag.analysis.successors import successors
from stabdiag.core.run import Run

BINARY = "binary-cross-entropy"
NEVER_NEGATIVE = frozenset({"cross-entropy", BINARY, "mean-squared-error", "absolute-error", "huber"})
"""Functions, as the event `loss` names them, that have no negative value for valid input."""


@dataclass(frozen=True)
class LossCurve:
    """`values` (float64, may be non-finite) at `steps`, both [n]; `several` where those of one step and
    another mean different things: more than one optimizer trains, so that opposed losses may share the curve,
    or it is that of a policy (`incomparable.py`)."""

    steps: NDArray[np.int64]
    values: Doubles
    several: bool = False

    @cached_property
    def window(self) -> int:
        """Steps over which the level is taken: a twentieth of the run, 5 to 50."""
        return int(np.clip(len(self.values) // 20, 5, 50))

    @cached_property
    def level(self) -> Doubles:
        """The trailing median of the finite values, [n]."""
        return trailing_median(np.where(np.isfinite(self.values), self.values, np.nan), self.window)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the bulk of the values about the level."""
        return spread(self.values - self.level)

    @property
    def scatter(self) -> float:
        """Within which a single value says nothing: 2 noise, 0 where too few are known to tell."""
        return 2.0 * self.noise if np.isfinite(self.values).sum() > 40 else 0.0

    @cached_property
    def margin(self) -> float:
        """A difference of two levels that noise alone does not make: 8 noise / sqrt(window)."""
        return 8.0 * self.noise / float(np.sqrt(self.window))

    @cached_property
    def start(self) -> float:
        """The first finite value; the level of those after it, where it lies below that by mere noise.
        One value of a model that was trained before says little."""
        finite = self.values[np.isfinite(self.values)]
        if not len(finite):
            return float("nan")
        first, later = float(finite[0]), finite[1 : self.window + 1]
        if len(later) < self.window:
            return first
        # What scatters more at first than ever after has been thrown off, and its first value was better.
        sigma = min(spread(np.diff(later)) / float(np.sqrt(2)), 2.0 * self.noise)
        level = float(np.median(later))
        return level if 0 < level - first < 4.0 * sigma else first

    @cached_property
    def best_at(self) -> int:
        """Position of the lowest level over a full window, of the last step where none is full."""
        full = np.where(np.arange(len(self.level)) >= self.window - 1, self.level, np.nan)
        return int(np.nanargmin(full)) if np.isfinite(full).any() else len(full) - 1

    @property
    def best(self) -> float:
        return min(float(self.level[self.best_at]), self.start)

    @property
    def end(self) -> float:
        """The last level that is known."""
        known = self.level[np.isfinite(self.level)]
        return float(known[-1]) if len(known) else float("nan")

    @property
    def progress(self) -> float:
        """From the start to the best level, 0 or more."""
        return self.start - self.best

    @cached_property
    def lost_from(self) -> int | None:
        """Position from which on no value was finite, None where the last one was."""
        finite = np.flatnonzero(np.isfinite(self.values))
        first = int(finite[-1]) + 1 if len(finite) else 0
        return first if first < len(self.values) else None

    @property
    def made_progress(self) -> bool:
        """Whether the best level lies clearly below the start: beyond noise, and by 5 % of it."""
        return self.progress > max(self.margin, 0.05 * abs(self.start))

    @property
    def harmed(self) -> bool:
        """Whether the run ends worse than it has been: non-finite, or having lost half of its
        progress, or, after 100 steps, having made none. Opposed losses show only the first."""
        if self.lost_from is not None:
            return True
        if self.several or len(self.values) < 10:
            return False
        if not self.made_progress:
            rose = self.end - self.start > max(self.margin, 0.1 * abs(self.start))
            return rose or len(self.values) >= 100
        return self.end - self.best > max(0.5 * self.progress, self.margin)


@once
def loss_curve(run: Run, least: int = 1) -> LossCurve:
    """The loss of the run. Raises MissingSeries where none was recorded, NotEvaluable with fewer than
    `least` steps or no finite value."""
    table = run.table("run.loss")
    values = table.first().astype(np.float64) if table.sites else np.empty(0)
    seen = ~np.isnan(values)
    if "run.nonfinite" in run:
        seen |= run.table("run.nonfinite").first() > 0
    steps, values = table.steps[seen], values[seen]
    if len(values) < max(least, 1):
        raise NotEvaluable(f"the loss of only {len(values)} steps was recorded, {max(least, 1)} are needed")
    return LossCurve(steps, values, several_optimizers(run) or incomparable(run, values))


def several_optimizers(run: Run) -> bool:
    """Whether more than one optimizer trains: a GAN's two sides, an actor and its critic. One that takes the
    place of another does not count."""
    numbers = {site.name.split(".")[1] for site in run.sites("run") if site.name.count(".") >= 2}
    found = sum(event.rank == 0 for event in run.events_of("optimizer"))
    later = len(successors(run))
    return found - later > 1 or len(numbers | {"0"}) - later > 1


def harmed(run: Run) -> bool:
    """Whether the loss shows harm; False where no loss was recorded."""
    if "run.loss" not in run:
        return False
    try:
        return loss_curve(run).harmed
    except NotEvaluable:
        return False
