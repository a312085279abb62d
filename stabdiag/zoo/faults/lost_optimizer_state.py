from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "lost-optimizer-state",
    signatures=("optimizer-state-lost",),
    causes=("optimizer-state-lost",),
    fixes=("add-warmup", "lower-learning-rate", "rollback"),
    follows=("loss-spike", "adam-stale-second-moment", "distribution-shift-or-resume"),
    optimizers=("adaptive",),
    least="info",
    undoes=False,
)
def plant(training: Training, dose: float) -> Planted:
    """At some step the optimizer forgets its moments, as where a checkpoint was restored without them."""
    at = spots.moment(training)
    spots.once(training, at, lambda: training.optimizers[0].state.clear())
    return Planted(at, shows=10)
