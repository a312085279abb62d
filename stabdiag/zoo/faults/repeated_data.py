from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "repeated-data",
    signatures=("data-repetition", "overfitting"),
    causes=("repeated-data", "too-little-data"),
    fixes=("reshuffle-data", "more-data", "early-stopping", "regularize"),
    doses=(64.0, 16.0, 4.0),
    found_from=4.0,
    needs=("classes|tokens",),
)
def plant(training: Training, dose: float) -> Planted:
    """The loader gives the same few batches again and again, in the same order; less of them is worse."""
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(index % int(dose))
    training.evaluate_every = 25
    return Planted(int(dose), shows=training.steps)
