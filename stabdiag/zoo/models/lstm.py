"""A two-layer LSTM that continues Zipf-Markov text."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.markov import markov
from stabdiag.zoo.training import Batch, Objective, Parts

VOCABULARY, LENGTH = 64, 24


class Language(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True, dropout=dropout)
        self.decoder = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.decoder(hidden)
        return logits


@architecture("lstm", "tokens", "recurrent", "head", "causal", lr=4e-3, sgd_lr=1.0, batch=12, clip=1.0)
def build(seed: int, batch: int, width: int = 64, dropout: float = 0.0) -> Parts:
    """Two LSTM layers, trained to predict the next token of a chain."""
    model = Language(width, dropout)
    batches = markov(seed, batch, LENGTH, VOCABULARY, repeats=False)

    def loss(data: Batch) -> Tensor:
        inputs, targets = data
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    return Parts(
        model, [Objective(model, loss)], batches, held_out(batches), ("embedding", "lstm", "decoder")
    )
