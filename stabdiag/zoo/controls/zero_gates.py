from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("zero-gates", needs=("stream",))
def prepare(training: Training) -> None:
    """Each residual branch is multiplied by a gate that begins at zero (Bachlechner et al. 2020)."""
    for name in training.parts.blocks:
        block = training.model.get_submodule(name)
        block.gate = nn.Parameter(torch.zeros(()))

        def gated(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            return inputs[0] + block.gate * (output - inputs[0])

        block.register_forward_hook(gated)
