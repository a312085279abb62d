from __future__ import annotations

from typing import Any

from torch import nn

from stabdiag.zoo import spots
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
    without=("adversarial", "latent"),
)
def plant(training: Training, dose: float) -> Planted:
    """The input of one block is detached: what is before it, and reaches the loss in no other way, never
    receives a gradient."""
    before = spots.gradients(training)
    for name in training.random.sample(training.parts.blocks[1:], len(training.parts.blocks) - 1):
        hook = training.model.get_submodule(name).register_forward_pre_hook(detach)
        lost = before - spots.gradients(training)
        if lost:
            return Planted(0, tuple(sorted(lost)), shows=60)
        hook.remove()
    raise LookupError("whatever is detached, gradients find another way")
