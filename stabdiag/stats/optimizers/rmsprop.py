"""RMSprop (Tieleman and Hinton 2012): gradients over the root of their running mean square, which is not
corrected for its start at zero; centered, and with a momentum of what was divided."""

from __future__ import annotations

from torch import Tensor

from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer, State, declare


@declare
class RMSprop(KnownOptimizer):
    id = "RMSprop"
    divides_by = ("square_avg",)

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        centered = ("grad_avg",) if group["centered"] else ()
        return ("square_avg", *centered, *(("momentum_buffer",) if group["momentum"] > 0 else ()))

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return (group["eps"],)

    def measure(self, batch: Batch) -> Tensor:
        (eps,) = batch.numbers
        second, mean = batch["square_avg"], batch.state.get("grad_avg")
        root = (second if mean is None else second - mean.square()).sqrt()
        divided = batch.gradient / (root + eps)
        known = {"rms": batch.behind(second, eps.square()), "eps_share": batch.mean(root < eps)}
        buffer = batch.state.get("momentum_buffer")
        if buffer is None:
            return batch.rows(**known, step=batch.root_mean_square(divided))
        return batch.rows(
            **known,
            step=batch.root_mean_square(buffer),
            cosine=batch.cosine(divided, buffer),
            momentum=buffer.norm(dim=1),
        )
