from __future__ import annotations

import copy

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("resumed", steps=300)
def prepare(training: Training) -> None:
    """A run is continued from a checkpoint that has all: the weights, the optimizer's state, the schedule,
    the data."""
    whole, before = training.rate, training.steps // 3
    training.prepare()
    training.steps = before
    training.rate = lambda step: training.lr * min(1.0, (step + 1) / max(1, training.warmup))
    training.run()
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in training.optimizers]
    training.optimizers.clear()
    training.losses.clear()
    training.steps, training.warmup, training.rate = 3 * before, 0, whole
    make = training.make_optimizer

    def restore(parameters, lr):  # type: ignore[no-untyped-def]
        optimizer = make(parameters, lr)
        optimizer.load_state_dict(states.pop(0))
        return optimizer

    training.make_optimizer = restore
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(index + before)
