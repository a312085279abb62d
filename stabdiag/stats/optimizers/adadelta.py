"""Adadelta (Zeiler 2012, arXiv 1212.5701): gradients over the root of their running mean square, times that
of the updates before. Epsilon is added to the squares."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class Adadelta(KnownOptimizer):
    id = "Adadelta"
    divides_by = ("square_avg",)

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return "square_avg", "acc_delta"

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return group["rho"], group["eps"]

    def measure(self, batch: Batch) -> Tensor:
        rho, eps = batch.numbers
        second, updates = batch["square_avg"], batch["acc_delta"]
        # The update went by the mean square of updates before it. That has taken in the update since:
        # a' = ρ a + (1 - ρ) u², where u² = s (a + ε) and s = g² / (v + ε). So u² by a' is
        size = batch.gradient.square() / (second + eps)
        squared = size * (updates + rho * eps) / (rho + (1 - rho) * size)
        return batch.rows(
            rms=batch.behind(second, eps),
            eps_share=batch.mean(second < eps),
            step=batch.mean(squared).sqrt(),
        )
