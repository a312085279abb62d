from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "batchnorm-lag",
    signatures=("norm-statistics-mismatch",),
    causes=("batchnorm-statistics",),
    fixes=("batchnorm-momentum",),
    doses=(1.0,),
    needs=("batchnorm",),
    broken={"momentum": 1e-4},
)
def plant(training: Training, dose: float) -> Planted:
    """Batch normalization with a momentum of 0.0001: evaluation uses statistics of long ago."""
    training.evaluate_every = 50
    return Planted(shows=training.steps)
