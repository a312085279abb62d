from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training

POOL = 128


@control("several-epochs", without=("adversarial",))
def prepare(training: Training) -> None:
    """A data set of 128 batches is seen three times, in another order each time."""
    sound = training.parts.batches

    def batches(index: int) -> tuple:  # type: ignore[type-arg]
        epoch, place = divmod(index, POOL)
        return sound((place * (2 * epoch + 3) + epoch) % POOL if epoch else place)

    training.parts.batches = batches
    training.evaluate_every = 64
