"""Adam and AdamW (Kingma and Ba 2014, arXiv 1412.6980), with AMSGrad."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class Adam(KnownOptimizer):
    id = "Adam"
    divides_by = ("exp_avg_sq", "max_exp_avg_sq")

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group.get("amsgrad") else ()))

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return state["step"], *group["betas"], group["eps"]

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        count, beta1, beta2, eps = settings
        return 1 - beta1**count, 1 - beta2**count, eps

    def measure(self, batch: Batch) -> Tensor:
        correction1, correction2, eps = batch.numbers
        first, second = batch["exp_avg"], batch["exp_avg_sq"] / correction2
        largest = batch.state.get("max_exp_avg_sq")
        root = (second if largest is None else largest / correction2).sqrt()
        return batch.rows(
            rms=batch.behind(second, eps.square()),
            eps_share=batch.mean(root < eps),
            step=batch.root_mean_square(first / correction1 / (root + eps)),
            cosine=batch.cosine(batch.gradient, first),
            momentum=first.norm(dim=1),
        )


@declare
class AdamW(Adam):
    id = "AdamW"
    decoupled = True
