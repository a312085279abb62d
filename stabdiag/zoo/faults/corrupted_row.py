from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "corrupted-row",
    signatures=("silent-data-corruption", "exploding-activation", "activation-outliers"),
    causes=("hardware-corruption",),
    fixes=("replay-step", "rollback"),
    follows=("loss-spike", "loss-divergence", "exploding-gradient", "dead-units"),
    doses=(10.0, 1e3, 1e5),
    found_from=1e5,
    recurs=False,
)
def plant(training: Training, dose: float) -> Planted:
    """Before some step one row of one matrix is multiplied, as a fault in memory would do."""
    at = spots.moment(training)
    name, weight = spots.matrix(training, spots.block(training))
    row = training.random.randrange(len(weight))

    def corrupt() -> None:
        weight.data[row] *= dose  # unseen by autograd, as the hardware would

    spots.once(training, at, corrupt)
    return Planted(at, (f"{spots.owner(name)}*",), shows=15)
