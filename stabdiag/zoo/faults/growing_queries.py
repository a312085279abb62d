from __future__ import annotations

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "growing-queries",
    signatures=("attention-logit-growth", "attention-entropy-collapse", "weight-norm-drift"),
    causes=(
        "weights-overwritten",
        "unbounded-attention-logits",
    ),
    fixes=("stop-overwriting", "qk-clip", "qk-norm", "attention-softcap", "lower-learning-rate"),
    follows=("exploding-gradient",),
    doses=(1.005, 1.03, 1.06),
    found_from=1.06,
    needs=("attention",),
    leads=True,
)
def plant(training: Training, dose: float) -> Planted:
    """From some step on the queries of one layer grow by a share at every step."""
    at = spots.moment(training, 0.3, 0.5)
    name, weight = spots.queries(training)
    spots.always_from(training, at, spots.scaled(weight, dose))
    return Planted(at, (name, f"{name}*"), shows=100)
