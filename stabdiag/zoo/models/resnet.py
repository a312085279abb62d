"""A residual network with group normalization, on pictures of shapes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.shapes import CLASSES, shapes
from stabdiag.zoo.training import Batch, Objective, Parts


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(4, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        z: Tensor = x + self.conv2(F.silu(self.norm2(y)))
        return z


class ResNet(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.body = nn.ModuleList(Residual(width) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.stem(pictures)
        for block in self.body:
            x = block(x)
        scores: Tensor = self.head(F.silu(x).mean((2, 3)))
        return scores


@architecture(
    "resnet",
    "classes",
    "pictures",
    "residual",
    "stream",
    "stack",
    "head",
    "norm",
    lr=2e-3,
    sgd_lr=0.05,
    batch=16,
)
def build(seed: int, batch: int, width: int = 16, layers: int = 3) -> Parts:
    """Residual blocks with group normalization and SiLU, trained to tell shapes apart."""
    model = ResNet(width, layers)
    batches = shapes(seed, batch)

    def loss(data: Batch) -> Tensor:
        pictures, classes = data
        return F.cross_entropy(model(pictures), classes)

    blocks = tuple(f"body.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
