"""A transformer encoder of torch's own layers, which classifies sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.topics import topics
from stabdiag.zoo.training import Batch, Objective, Parts

VOCABULARY, LENGTH, CLASSES = 40, 24, 8


class Classifier(nn.Module):
    def __init__(self, layers: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(torch.randn(LENGTH, width) * 0.1)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.encoder(self.embedding(tokens) + self.position)
        scores: Tensor = self.score(self.norm(x).amax(1))
        return scores


@architecture(
    "encoder", "transformer", "attention", "classes", "tokens", "residual", "stream", "norm", "head",
    "positions",
    lr=2e-3, sgd_lr=0.1, batch=16, steps=300, clip=1.0,
)  # fmt: skip
def build(seed: int, batch: int, layers: int = 2, width: int = 48, dropout: float = 0.0) -> Parts:
    """A pre-norm encoder, trained to tell the topic of a sequence."""
    model = Classifier(layers, width, dropout)
    batches = topics(seed, batch, LENGTH, VOCABULARY, CLASSES)

    def loss(data: Batch) -> Tensor:
        tokens, classes = data
        return F.cross_entropy(model(tokens), classes)

    blocks = tuple(f"encoder.layers.{i}" for i in range(layers))
    return Parts(model, [Objective(model, loss)], batches, held_out(batches), blocks)
