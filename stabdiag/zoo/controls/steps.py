from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("stepped-lr")
def prepare(training: Training) -> None:
    """The learning rate is divided by ten at two thirds of the run, as a schedule of steps does."""

    def rate(step: int) -> float:
        falls = 0.1 if step >= 2 * training.steps // 3 else 1.0
        return training.lr * min(1.0, (step + 1) / max(training.warmup, 1)) * falls

    training.rate = rate
