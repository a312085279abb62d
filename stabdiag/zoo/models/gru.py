"""A GRU that tells waves apart by their form."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.waves import FORMS, waves
from stabdiag.zoo.training import Batch, Objective, Parts

LENGTH = 40


class Listener(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.front = nn.Linear(1, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.back = nn.Linear(width, width)
        self.choose = nn.Linear(width, FORMS)

    def forward(self, signal: Tensor) -> Tensor:
        hidden, _ = self.gru(self.front(signal))
        scores: Tensor = self.choose(F.leaky_relu(self.back(hidden.mean(1))))
        return scores


@architecture(
    "gru",
    "classes",
    "recurrent",
    "head",
    "signals",
    "solvable",
    lr=3e-3,
    sgd_lr=0.1,
    batch=16,
    steps=300,
    clip=1.0,
)
def build(seed: int, batch: int, width: int = 48) -> Parts:
    """A GRU over the wave and two layers on the mean of its states, trained to name the form."""
    model = Listener(width)
    batches = waves(seed, batch, LENGTH, forms=True)

    def loss(data: Batch) -> Tensor:
        signal, form = data
        return F.cross_entropy(model(signal), form)

    return Parts(model, [Objective(model, loss)], batches, held_out(batches), ("front", "gru", "back"))
