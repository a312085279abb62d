from __future__ import annotations

import time

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "slow-rank",
    signatures=("rank-straggler",),
    causes=("slow-rank",),
    fixes=(),
    follows=("training-stall",),
    doses=(0.01, 0.1, 0.3),
    found_from=0.3,
    without=("router", "adversarial"),
    steps=200,
    world=2,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on rank 1 waits a while before each step, and all wait for it."""
    at = spots.moment(training)

    def wait() -> None:
        if training.rank == 1:
            time.sleep(dose)

    spots.always_from(training, at, wait)
    return Planted(at, ("rank-1",), shows=60)
