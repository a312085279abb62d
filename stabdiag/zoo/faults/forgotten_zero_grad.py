from __future__ import annotations

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


def nothing(set_to_none: bool = True) -> None:
    pass


@fault(
    "forgotten-zero-grad",
    roots=["gradients-not-zeroed"],
    causes=["gradients-not-zeroed"],
    steps=150,
    clip=0.0,
)
def plant(options: Options, batches: Batches) -> Planted:
    """Nobody zeroes the gradients: each step follows the sum of all gradients since the beginning."""
    model = build_model(options)
    optimizer = build_optimizer(model, options)
    optimizer.zero_grad = nothing  # type: ignore[method-assign]
    return model, optimizer, batches
