from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "sharp-attention",
    signatures=("attention-entropy-collapse", "attention-logit-growth"),
    causes=("unbounded-attention-logits",),
    fixes=("qk-clip", "qk-norm", "attention-softcap", "lower-learning-rate", "rollback"),
    follows=("loss-spike", "loss-divergence", "exploding-gradient"),
    doses=(3.0, 30.0, 300.0),
    found_from=300.0,
    needs=("attention",),
    undoes=False,
)
def plant(training: Training, dose: float) -> Planted:
    """At some step the queries of one layer are multiplied: each row sees a single key."""
    at = spots.moment(training)
    name, weight = spots.queries(training)
    spots.once(training, at, spots.scaled(weight, dose))
    return Planted(at, (name, f"{name}*"), shows=25)
