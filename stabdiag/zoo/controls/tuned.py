from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("gentle-tuning", needs=("gpt|markov-gpt|conv|encoder|mlp|lstm",), steps=300)
def prepare(training: Training) -> None:
    """A model that was trained before is trained on, at a fifth of the rate: it begins with a good loss."""
    training.prepare()
    training.run()
    training.optimizers.clear()
    training.losses.clear()
    training.lr /= 5
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(index + 10_000)
