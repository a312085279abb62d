"""Adamax (Kingma and Ba 2014, arXiv 1412.6980): Adam with the largest gradient of late in the place of a
second moment. No gradient is above that, so it lags behind none."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class Adamax(KnownOptimizer):
    id = "Adamax"
    divides_by = ("exp_inf",)

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return "exp_avg", "exp_inf"

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return state["step"], group["betas"][0], group["eps"]

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        count, beta1, eps = settings
        return 1 - beta1**count, eps

    def measure(self, batch: Batch) -> Tensor:
        correction, eps = batch.numbers
        first, largest = batch["exp_avg"], batch["exp_inf"]
        return batch.rows(
            eps_share=batch.mean(largest < 2 * eps),  # it has been added to the gradients
            step=batch.root_mean_square(first / correction / largest),
            cosine=batch.cosine(batch.gradient, first),
            momentum=first.norm(dim=1),
        )
