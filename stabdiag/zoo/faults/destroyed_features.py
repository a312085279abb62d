from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.pretrained import pretrain
from stabdiag.zoo.training import Training


@fault(
    "destroyed-features",
    signatures=("finetune-degeneration", "lr-divergence", "loss-divergence", "update-ratio-high"),
    causes=("learning-rate-too-high", "missing-warmup"),
    fixes=("lower-learning-rate", "add-warmup", "rollback"),
    follows=("loss-spike", "attention-logit-growth", "dead-units"),
    doses=(0.1, 10.0, 50.0),
    found_from=50.0,
    without=("adversarial",),
    steps=300,
    sound="gentle-tuning",
)
def plant(training: Training, dose: float) -> Planted:
    """A model that was trained before is tuned on, with a rate and without the warm-up that would keep what
    it knows."""
    pretrain(training)
    training.lr *= dose
    training.warmup, training.clip = 0, 0.0
    return Planted(shows=20)
