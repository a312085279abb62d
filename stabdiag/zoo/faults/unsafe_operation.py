from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "unsafe-operation",
    signatures=("nonfinite-origin",),
    causes=("unsafe-operation",),
    fixes=("guard-operation", "skip-nonfinite-steps", "fp32-operation"),
    follows=("loss-divergence", "loss-plateau"),
    needs=("gpt|markov-gpt|mlp|conv|resnet|regression|encoder",),
)
def plant(training: Training, dose: float) -> Planted:
    """One block takes t log t of an annealed temperature, which is exactly zero at some step: 0 times
    infinity."""
    at, name = spots.moment(training), spots.block(training)
    calls = 0

    def anneal(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        nonlocal calls
        temperature = torch.tensor(1 - calls / at).clamp(min=0)
        calls += block.training
        return output + 1e-4 * temperature * temperature.log()

    training.model.get_submodule(name).register_forward_hook(anneal)
    return Planted(at, (f"{name}*",), shows=1)
