"""Adam with Nesterov's momentum (Dozat 2016): the gradient weighs beside the first moment, too."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class NAdam(KnownOptimizer):
    id = "NAdam"
    divides_by = ("exp_avg_sq",)

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        held = state["step"], state["mu_product"]
        return *held, *group["betas"], group["eps"], group["momentum_decay"]

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        count, product, beta1, beta2, eps, decay = settings
        now, following = (beta1 * (1 - 0.5 * 0.96 ** (at * decay)) for at in (count, count + 1))
        return (1 - now) / (1 - product), following / (1 - product * following), 1 - beta2**count, eps

    def measure(self, batch: Batch) -> Tensor:
        of_gradient, of_first, correction, eps = batch.numbers
        first, second = batch["exp_avg"], batch["exp_avg_sq"] / correction
        root = second.sqrt()
        return batch.rows(
            rms=batch.behind(second, eps.square()),
            eps_share=batch.mean(root < eps),
            step=batch.root_mean_square((of_gradient * batch.gradient + of_first * first) / (root + eps)),
            cosine=batch.cosine(batch.gradient, first),
            momentum=first.norm(dim=1),
        )
