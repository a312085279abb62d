from __future__ import annotations

from typing import Any

from torch import nn

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


def without_skip(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return output - inputs[0]


@fault(
    "no-residual",
    signatures=("rank-collapse", "context-blind-plateau"),
    causes=("missing-residual",),
    fixes=("add-residual",),
    follows=("loss-plateau", "attention-uniform", "vanishing-gradient"),
    needs=("stream", "attention"),
    shape={"layers": 6},
)
def plant(training: Training, dose: float) -> Planted:
    """Six blocks without their skips around them: tokens become alike with depth."""
    for name in training.parts.blocks:
        training.model.get_submodule(name).register_forward_hook(without_skip)
    return Planted(0, shows=100)
