"""A convolutional network with batch normalization, on pictures of shapes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.shapes import CLASSES, shapes
from stabdiag.zoo.training import Batch, Objective, Parts


class Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, momentum=momentum)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.norm(self.conv(x)))
        return y


class ConvNet(nn.Module):
    def __init__(self, width: int, momentum: float, dropout: float) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            Stage(1, width, 1, momentum), Stage(width, 2 * width, 2, momentum),
            Stage(2 * width, 2 * width, 2, momentum), Stage(2 * width, 2 * width, 1, momentum),
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * width, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        pooled = self.stages(pictures).mean((2, 3))
        scores: Tensor = self.classify(self.dropout(pooled))
        return scores


@architecture(
    "conv",
    "classes",
    "relu",
    "pictures",
    "batchnorm",
    "head",
    "norm",
    "solvable",
    lr=3e-3,
    sgd_lr=0.05,
    batch=32,
)
def build(seed: int, batch: int, width: int = 12, momentum: float = 0.1, dropout: float = 0.0) -> Parts:
    """Convolutions with batch normalization and ReLU, trained to tell shapes apart."""
    model = ConvNet(width, momentum, dropout)
    batches = shapes(seed, batch)

    def loss(data: Batch) -> Tensor:
        pictures, classes = data
        return F.cross_entropy(model(pictures), classes)

    blocks = tuple(f"stages.{i}" for i in range(4))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
