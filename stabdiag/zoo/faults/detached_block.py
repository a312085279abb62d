from __future__ import annotations

from torch import Tensor, nn

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


def detach(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].detach(),)


@fault(
    "detached-block",
    roots=["unreachable-parameters"],
    causes=["detached-graph"],
    site="blocks.[01].*",
    steps=120,
)
def plant(options: Options, batches: Batches) -> Planted:
    """The input of block 2 is detached: blocks 0 and 1 and the positions never receive a gradient."""
    model = build_model(options)
    model.blocks[2].register_forward_pre_hook(detach)
    return model, build_optimizer(model, options), batches
