from __future__ import annotations

import math

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training

PERIOD = 130


@control("warm-restarts", without=("adversarial",))
def prepare(training: Training) -> None:
    """The learning rate falls along a cosine and starts again, several times (Loshchilov and Hutter 2017)."""

    def rate(step: int) -> float:
        if step < training.warmup:
            return training.scheduled(step)
        return training.lr * (0.05 + 0.95 * (1 + math.cos(math.pi * (step % PERIOD) / PERIOD)) / 2)

    training.rate = rate
