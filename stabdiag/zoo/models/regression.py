"""A tanh network that imitates a random teacher's values."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.teacher import teacher
from stabdiag.zoo.training import Batch, Objective, Parts

INPUTS, OUTPUTS = 16, 3


class Regressor(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(INPUTS, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.outputs = nn.Linear(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x).tanh()
        for layer in self.hidden:
            x = layer(x).tanh()
        y: Tensor = self.outputs(x)
        return y


@architecture("regression", "values", "tanh", "vectors", lr=2e-3, sgd_lr=0.05, batch=64)
def build(seed: int, batch: int, width: int = 96, layers: int = 3) -> Parts:
    """Linear layers and tanh, trained to fit values by their squared error."""
    model = Regressor(width, layers)
    batches = teacher(seed, batch, INPUTS, OUTPUTS, classes=False)

    def loss(data: Batch) -> Tensor:
        points, values = data
        return F.mse_loss(model(points), values)

    blocks = tuple(f"hidden.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
