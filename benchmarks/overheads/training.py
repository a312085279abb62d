"""What is trained: the reference GPT on random tokens, by AdamW, with clipped gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from stabdiag.reference.model import GPT, Config


class Size(NamedTuple):
    """A model and its batch, and how long it is looked at.

    Beside a bare run, a turn is of `steps` steps; there are `rounds` of turns, and after `fresh` of them
    all processes are started anew. Under a budget there are `runs` of `length` steps. On a GPU the forward
    pass is under autocast to bfloat16.
    """

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int
    batch: int
    steps: int
    rounds: int
    fresh: int
    runs: int
    length: int
    device: str = "cpu"

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, width {self.width}, context {self.context},"
            f" vocabulary {self.vocabulary:,}, batch {self.batch}"
        )


SIZES = {
    "small": Size(4, 4, 128, 128, 256, 16, steps=3, rounds=18, fresh=6, runs=2, length=400),
    "medium": Size(6, 6, 384, 256, 8192, 8, steps=1, rounds=6, fresh=3, runs=1, length=80),
    "large": Size(12, 12, 768, 1024, 50304, 8, steps=5, rounds=8, fresh=4, runs=1, length=400),
    # As many modules and parameters as small, and next to no arithmetic: what is left is dispatch.
    "skeleton": Size(4, 4, 8, 8, 16, 1, steps=10, rounds=80, fresh=20, runs=1, length=400),
}


class Training:
    """Seeds are equal: every process trains the same model on the same tokens."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        self.size = size
        config = Config(size.vocabulary, size.context, size.layers, size.heads, size.width)
        self.model = GPT(config).to(size.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1
        )

    def tokens(self) -> torch.Tensor:
        """int64 [batch, context + 1]."""
        shape = self.size.batch, self.size.context + 1
        return torch.randint(self.size.vocabulary, shape, device=self.size.device)

    def update(self, tokens: torch.Tensor) -> torch.Tensor:
        """One step but for the clearing of the gradients; the loss."""
        with torch.autocast(self.size.device, torch.bfloat16, enabled=self.size.device != "cpu"):
            logits = self.model(tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss
