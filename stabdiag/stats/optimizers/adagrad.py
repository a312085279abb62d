"""Adagrad (Duchi et al. 2011): gradients over the root of the sum of all their squares. That sum over the
number of steps is the second moment that it holds, and it forgets nothing."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class Adagrad(KnownOptimizer):
    id = "Adagrad"
    divides_by = ("sum",)

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return ("sum",)

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return state["step"], group["lr_decay"], group["eps"]

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        count, decay, eps = settings
        return count, 1 + (count - 1) * decay, eps

    def measure(self, batch: Batch) -> Tensor:
        count, slowed, eps = batch.numbers
        total = batch["sum"]
        root = total.sqrt()
        return batch.rows(
            rms=batch.behind(total / count, eps.square() / count),
            eps_share=batch.mean(root < eps),
            step=batch.root_mean_square(batch.gradient / (root + eps) / slowed),
        )
