from __future__ import annotations

from typing import Any

from torch import nn

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


def detach(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].detach(), *inputs[1:])


@fault(
    "detached-block",
    signatures=("unreachable-parameters",),
    causes=("detached-graph",),
    fixes=("reattach-graph",),
    follows=("frozen-parameters", "vanishing-gradient", "context-blind-plateau", "loss-plateau"),
    needs=("gpt|markov-gpt|mlp|conv|resnet|regression",),
)
def plant(training: Training, dose: float) -> Planted:
    """The input of one block is detached: all before it never receives a gradient."""
    blocks = training.parts.blocks
    cut = training.random.randrange(1, len(blocks))
    training.model.get_submodule(blocks[cut]).register_forward_pre_hook(detach)
    return Planted(0, tuple(f"{name}.*" for name in blocks[:cut]), shows=60)
