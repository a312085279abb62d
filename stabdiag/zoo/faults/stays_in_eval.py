from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "stays-in-eval",
    signatures=("mode-mismatch",),
    causes=("wrong-mode",),
    fixes=("set-train-mode",),
    follows=("norm-statistics-mismatch", "overfitting"),
    shape={"dropout": 0.2},
)
def plant(training: Training, dose: float) -> Planted:
    """After an evaluation the model is not put back into training mode: dropout is off, and norms use old
    statistics."""
    at = spots.moment(training, 0.2, 0.5)

    def evaluate() -> None:
        training.evaluate()
        training.model.eval()

    spots.once(training, at, evaluate)
    return Planted(at, shows=40)
