"""A multilayer perceptron that imitates a random teacher's classes."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.teacher import teacher
from stabdiag.zoo.training import Batch, Objective, Parts

INPUTS, CLASSES = 32, 8
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


@architecture("mlp", "classes", "relu", "vectors", "head", lr=2e-3, sgd_lr=0.05, batch=64)
def build(
    seed: int, batch: int, width: int = 128, layers: int = 4, activation: str = "relu", dropout: float = 0.0
) -> Parts:
    """Linear layers and ReLU, trained to classify points."""
    sizes = [INPUTS, *[width] * layers]
    hidden = [
        nn.Sequential(nn.Linear(a, b), ACTIVATIONS[activation](), nn.Dropout(dropout))
        for a, b in pairwise(sizes)
    ]
    model = nn.Sequential(*hidden, nn.Linear(width, CLASSES))
    batches = teacher(seed, batch, INPUTS, CLASSES, classes=True)

    def loss(data: Batch) -> Tensor:
        points, classes = data
        return F.cross_entropy(model(points), classes)

    blocks = tuple(str(i) for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
