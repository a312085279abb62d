"""The loss on data that is not trained on, evaluation by evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import LossCurve
from stabdiag.analysis.robust import Doubles, spread
from stabdiag.core.run import Run


@dataclass(frozen=True)
class Evaluations:
    """Finite `values` at `steps` (the training step that followed), [n], of the loss named `site`."""

    site: str
    steps: NDArray[np.int64]
    values: Doubles

    @property
    def best_at(self) -> int:
        return int(np.argmin(self.values))

    @property
    def best(self) -> float:
        return float(self.values[self.best_at])

    @property
    def progress(self) -> float:
        """From the first evaluation to the best one, 0 or more."""
        return float(self.values[0]) - self.best

    @property
    def noise(self) -> float:
        """Standard deviation of a single evaluation about a smooth curve: of second differences over √6."""
        return spread(np.diff(self.values, 2)) / float(np.sqrt(6)) if len(self.values) > 4 else 0.0

    @property
    def rise(self) -> float:
        """By how much even the best of the last three evaluations lies above the best of all."""
        return float(self.values[-3:].min()) - self.best

    def overfits(self, curve: LossCurve, worse: float) -> bool:
        """Whether evaluations have become worse since the best one while the training loss went on
        falling: by `worse` of the value or of three times as much of the progress, and beyond noise. Not
        where
        nearly all of it came at once: then something happened to the data or to the model."""
        if len(self.values) - 1 - self.best_at < 3:
            return False
        least = max(worse * abs(self.best), 3 * worse * self.progress, 4.0 * self.noise)
        at = int(np.clip(np.searchsorted(curve.steps, self.steps[self.best_at]), 0, len(curve.steps) - 1))
        fell = float(curve.level[at]) - curve.end
        after = self.values[self.best_at :]
        at_once = float(np.diff(after).max()) > 0.7 * (float(after.max()) - self.best)
        return self.rise > least and not at_once and fell > 2.0 * curve.noise / float(np.sqrt(curve.window))


def evaluations(run: Run, least: int = 4) -> Evaluations:
    """Of the loss that is trained on, where it was evaluated, else of the first. NotEvaluable with fewer
    than `least` finite ones."""
    table = run.table("evaluation.loss")
    names = table.names
    trained = run.fact("loss", "function")
    column = names.index(trained) if trained in names else 0
    values = table.values[:, column].astype(np.float64) if names else np.empty(0)
    kept = np.isfinite(values)
    if kept.sum() < least:
        raise NotEvaluable(f"the loss of only {kept.sum()} evaluations is known, {least} are needed")
    return Evaluations(names[column], table.steps[kept], values[kept])
