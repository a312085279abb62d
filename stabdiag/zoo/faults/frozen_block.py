from __future__ import annotations

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "frozen-block",
    roots=["frozen-parameters"],
    causes=["parameters-not-optimized"],
    site="blocks.1.*",
    steps=120,
    clip=0.0,  # the block's gradients, zeroed by nobody, would otherwise choke all others through the clip
)
def plant(options: Options, batches: Batches) -> Planted:
    """Block 1 is unfrozen after the optimizer was made: it receives gradients, but nobody moves it."""
    model = build_model(options)
    model.blocks[1].requires_grad_(False)
    optimizer = build_optimizer(model, options)
    model.blocks[1].requires_grad_(True)
    return model, optimizer, batches
