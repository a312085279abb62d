from __future__ import annotations

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "lr-too-low",
    roots=["update-ratio-low", "loss-plateau"],
    causes=["learning-rate-too-low"],
    lr=1e-6,
    final_lr=1e-7,
    steps=200,
)
def plant(options: Options, batches: Batches) -> Planted:
    """A learning rate of a millionth: gradients flow, but the weights and the loss stand still."""
    model = build_model(options)
    return model, build_optimizer(model, options), batches
