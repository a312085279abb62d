from __future__ import annotations

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "lr-too-high",
    roots=["loss-divergence", "update-ratio-high"],
    causes=["learning-rate-too-high", "missing-warmup"],
    lr=1.0,
    final_lr=1.0,
    warmup=0,
    clip=0.0,
    steps=150,
)
def plant(options: Options, batches: Batches) -> Planted:
    """A learning rate of 1.0, some 500 times what the model bears, without warm-up or clipping.

    The first updates are larger than the weights; the loss leaps and never falls below its start.
    """
    model = build_model(options)
    return model, build_optimizer(model, options), batches
