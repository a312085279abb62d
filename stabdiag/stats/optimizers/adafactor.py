"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235) as torch has it: a second moment of rows and columns,
and updates of bounded size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stabdiag.stats.optimizer import TINY, Batch, Group, KnownOptimizer, State, declare
from stabdiag.stats.sample import slab_places


@declare
class Adafactor(KnownOptimizer):
    """Its learning rate is relative, so `step` is in those that it makes of it: max(ε₂, root mean square of
    the weights) · min(lr, 1/√t). Epsilon is ε₁, a floor under the root of the second moment. It is also one
    under the mean of the rows, which scales all updates of a matrix alike, and is left out of `rms`."""

    id = "Adafactor"
    divides_by = ("variance", "row", "column")
    decoupled = True
    whole = True

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        return ("variance",) if "variance" in state else ("row_var", "col_var")

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        return _floor(group), group["d"]

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        floor, most = settings
        return floor.square(), most, floor

    def coordinates(self, gradient: Tensor, state: Mapping[str, Tensor], limit: int) -> dict[str, Tensor]:
        if "variance" in state:
            return super().coordinates(gradient, state, limit)
        rows, columns = state["row_var"], state["col_var"]
        height, width = gradient.shape[-2:]
        if rows.shape != (*gradient.shape[:-1], 1) or columns.shape != (*gradient.shape[:-2], 1, width):
            return {}
        at = slab_places(gradient.numel(), limit, gradient.device)
        matrix = at // (height * width)
        of_row = rows.flatten()[at // width].float()
        of_column = columns.flatten()[matrix * width + at % width].float()
        mean = rows.float().mean(dim=-2).flatten()[matrix]
        return {"row": of_row, "column": of_column, "mean": mean}

    def measure(self, batch: Batch) -> Tensor:
        floor, most, small = batch.numbers
        if "variance" in batch.state:
            second = used = batch["variance"]
        else:
            row, column, mean = batch["row"], batch["column"], batch["mean"]
            second = row / mean.clamp(min=TINY) * column
            used = row * column / torch.maximum(mean, small)
        size = batch.root_mean_square(batch.gradient * used.clamp(min=floor).rsqrt())
        return batch.rows(
            rms=batch.behind(second, floor),
            eps_share=batch.mean(used < floor),
            step=size / (size / most[:, 0]).clamp(min=1),
        )


def _floor(group: Group) -> float | Tensor:
    """ε₁: by default that of the type of the first parameter that has a gradient, for the whole group."""
    floor: float | Tensor | None = group["eps"][0]
    if floor is not None:
        return floor
    first = next(parameter for parameter in group["params"] if parameter.grad is not None)
    return torch.finfo(first.dtype).eps
