"""The bundled language model, on the bytes of Python's standard library."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stabdiag.reference.data import Vocabulary, batches, read
from stabdiag.reference.model import GPT, Config
from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.training import Batch, Objective, Parts

CONTEXT = 32


@architecture(
    "gpt",
    "transformer",
    "attention",
    "tokens",
    "causal",
    "residual",
    "stream",
    "stack",
    "norm",
    "head",
    "positions",
    lr=3e-3,
    sgd_lr=0.3,
    batch=8,
    steps=300,
    clip=1.0,
)
def build(
    seed: int,
    batch: int,
    layers: int = 3,
    width: int = 48,
    heads: int = 4,
    dropout: float = 0.0,
    tied: bool = False,
) -> Parts:
    """A decoder with learned positions, pre-norm blocks and GELU, trained to predict the next byte."""
    model = GPT(Config(context=CONTEXT, layers=layers, width=width, heads=heads, dropout=dropout, tied=tied))
    tokens = Vocabulary().encode(read())
    split = len(tokens) * 9 // 10

    def loss(data: Batch) -> Tensor:
        inputs, targets = data
        logits = model(inputs)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return Parts(
        model,
        [Objective(model, loss)],
        batches(tokens[:split], batch, CONTEXT, seed),
        batches(tokens[split:], batch, CONTEXT, seed),
        tuple(f"blocks.{i}" for i in range(layers)),
    )
