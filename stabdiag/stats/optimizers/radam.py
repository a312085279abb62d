"""RAdam (Liu et al. 2019, arXiv 1908.03265): gradient descent with momentum until the second moment is of
gradients enough, then Adam with a step that grows to its own."""

from __future__ import annotations

import torch
from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class RAdam(KnownOptimizer):
    id = "RAdam"
    divides_by = ("exp_avg_sq",)

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return state["step"], *group["betas"], group["eps"]

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        count, beta1, beta2, eps = settings
        correction = 1 - beta2**count
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * count * beta2**count / correction
        rectifier = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        # 0 in the steps that are not divided by the second moment.
        factor = torch.where(length > 5, (rectifier.clamp(min=0) * correction).sqrt(), 0)
        return 1 - beta1**count, correction, factor, eps

    def measure(self, batch: Batch) -> Tensor:
        correction1, correction2, factor, eps = batch.numbers
        first, root = batch["exp_avg"], batch["exp_avg_sq"].sqrt()
        divided = factor > 0
        scale = torch.where(divided, factor / (root + eps), 1)
        share = batch.mean(root < eps)
        return batch.rows(
            rms=batch.behind(batch["exp_avg_sq"] / correction2, eps.square()),
            eps_share=torch.where(divided[:, 0], share, float("nan")),
            step=batch.root_mean_square(first / correction1 * scale),
            cosine=batch.cosine(batch.gradient, first),
            momentum=first.norm(dim=1),
        )
