from __future__ import annotations

import torch
from torch import Tensor, nn

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


class Annealed(nn.Module):
    """Adds t log t, small, of a temperature t that is exactly zero at training call `last`."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last, self.calls = last, 0

    def forward(self, x: Tensor) -> Tensor:
        temperature = torch.tensor(1 - self.calls / self.last).clamp(min=0)
        self.calls += self.training
        return x + 1e-4 * temperature * temperature.log()


@fault(
    "unsafe-operation",
    signatures=("nonfinite-origin",),
    causes=("unsafe-operation",),
    fixes=("guard-operation", "skip-nonfinite-steps", "fp32-operation"),
    follows=("loss-divergence", "loss-plateau"),
    without=("adversarial",),
)
def plant(training: Training, dose: float) -> Planted:
    """One block takes t log t of an annealed temperature, which is exactly zero at some step: 0 times
    infinity."""
    at = spots.moment(training)
    # Recurrent layers of torch give a pair.
    blocks = [n for n in training.parts.blocks if not isinstance(training.model.get_submodule(n), nn.RNNBase)]
    name = training.random.choice(blocks)
    spots.continued(training.model.get_submodule(name), Annealed(at))
    return Planted(at, (f"{name}*",), shows=1)
