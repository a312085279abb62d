"""Gradient descent with momentum: a first moment and nothing else. Its step has no size of its own."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class SGD(KnownOptimizer):
    id = "SGD"

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def measure(self, batch: Batch) -> Tensor:
        buffer = batch["momentum_buffer"]
        return batch.rows(cosine=batch.cosine(batch.gradient, buffer), momentum=buffer.norm(dim=1))


@declare
class Muon(SGD):
    """What it does with the momentum (Jordan et al. 2024) takes the whole matrix to know."""

    id = "Muon"
    decoupled = True
