"""A network that passes messages along edges (Gilmer et al. 2017, arXiv 1704.01212), on small random
graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.graphs import graphs, mean_of_neighbors
from stabdiag.zoo.training import Batch, Objective, Parts

FEATURES, CLASSES = 8, 6


class MessagePassing(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.message = nn.Linear(width, width)
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y = self.norm(x)
        heard = mean_of_neighbors(self.message(y), edges)
        z: Tensor = x + self.dropout(self.update(torch.cat([y, heard], 1)))
        return z


class GraphNetwork(nn.Module):
    def __init__(self, layers: int, width: int, dropout: float) -> None:
        super().__init__()
        self.encode = nn.Linear(FEATURES, width)
        self.convs = nn.ModuleList(MessagePassing(width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, CLASSES)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        x = self.encode(features)
        for conv in self.convs:
            x = conv(x, edges)
        scores: Tensor = self.classify(self.norm(x))
        return scores


@architecture(
    "graph", "classes", "vectors", "edges", "residual", "stream", "stack", "norm", "relu", "head",
    lr=2e-3, sgd_lr=0.07, batch=16, steps=300,
)  # fmt: skip
def build(seed: int, batch: int, layers: int = 3, width: int = 48, dropout: float = 0.0) -> Parts:
    """Residual layers of mean messages, trained to classify nodes by what is around them."""
    model = GraphNetwork(layers, width, dropout)
    batches = graphs(seed, batch, FEATURES, CLASSES)

    def loss(data: Batch) -> Tensor:
        features, edges, classes = data
        return F.cross_entropy(model(features, edges), classes)

    blocks = tuple(f"convs.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
