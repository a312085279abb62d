"""What the state of an optimizer says of a step: what all optimizers that are known have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from stabdiag.core.registry import Registry
from stabdiag.stats.sample import slabs

STATISTICS = ("rms", "eps_share", "step", "cosine", "momentum")
TINY = torch.finfo(torch.float32).tiny
Group = Mapping[str, Any]
State = Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Parameters after a step, a row each, float32 [parameters, coordinates] on one device.

    `gradient` is what the optimizer used: its sign turned where it maximizes, weight decay added where that
    is part of it. Rows that have fewer coordinates than others, `size` [parameters, 1] in number, end in
    zeros, and those of what is divided by in infinities. `numbers` are the optimizer's `coefficients`,
    [parameters, 1] each.
    """

    gradient: Tensor
    state: Mapping[str, Tensor]
    size: Tensor
    numbers: tuple[Tensor, ...]

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def mean(self, values: Tensor) -> Tensor:
        """Over the coordinates that there are; beyond these `values` are zeros."""
        means: Tensor = values.sum(1) / self.size[:, 0]
        return means

    def root_mean_square(self, values: Tensor) -> Tensor:
        return self.mean(values.square()).sqrt()

    def behind(self, second: Tensor, floor: Tensor) -> Tensor:
        """RMS_t of Wortsman et al. (arXiv 2304.13013): the gradient against its second moment, or `floor`
        [parameters, 1] where that is larger."""
        return self.mean(self.gradient.square() / second.clamp(min=floor.clamp(min=TINY))).sqrt()

    def cosine(self, one: Tensor, other: Tensor) -> Tensor:
        lengths = one.norm(dim=1) * other.norm(dim=1)
        cosines: Tensor = (one * other).sum(1) / lengths.clamp(min=TINY)
        return cosines

    def rows(self, **known: Tensor) -> Tensor:
        """[parameters, 6]: the statistics by name, NaN for those that the optimizer has not, and one that is
        finite where its state is."""
        missing = torch.full_like(self.size[:, 0], float("nan"))
        whole = known["momentum"] if "momentum" in known else known["step"]
        return torch.stack([*(known.get(name, missing) for name in STATISTICS), whole], dim=1)


class KnownOptimizer:
    """A module of `stats.optimizers` declares one for a class of torch.optim that has the name `id`.

    Of one step it tells, where there is such a thing,

    rms        the gradient against the second moment that the optimizer holds of it: 1 where that describes
               the gradient, above where it lags behind
    eps_share  share of coordinates where epsilon makes up more than half of what is divided by (or stands in
               its place): their step is no longer normalised
    step       root mean square of the update, in learning rates, without decoupled weight decay
    cosine     of what goes into the first moment with the first moment
    momentum   norm of the first moment
    """

    id: ClassVar[str]
    divides_by: ClassVar[tuple[str, ...]] = ()
    """What of `coordinates` is, or goes into, a denominator."""
    decoupled: ClassVar[bool] = False
    """Whether weight decay is no part of the gradient, whatever the group says."""
    whole: ClassVar[bool] = False
    """Whether the step of an element depends on all others, so that a part of a tensor tells nothing."""

    def keeps(self, group: Group, state: State) -> tuple[str, ...]:
        """The names of the tensors in a parameter's state that tell of its step."""
        raise NotImplementedError

    def settings(self, group: Group, state: State) -> tuple[float | Tensor, ...]:
        """Numbers, or tensors of one, that `coefficients` are made of."""
        return ()

    def coefficients(self, *settings: Tensor) -> tuple[Tensor, ...]:
        """What the settings of many parameters come to, all of one shape, in double precision where the
        device has it."""
        return settings

    def coordinates(self, gradient: Tensor, state: Mapping[str, Tensor], limit: int) -> dict[str, Tensor]:
        """About `limit` coordinates of what `keeps` names, the same as `slabs` takes of the gradient; empty
        where the state is not of the parameter's shape."""
        if any(held.shape != gradient.shape for held in state.values()):
            return {}
        return {name: slabs(held.contiguous(), limit) for name, held in state.items()}

    def measure(self, batch: Batch) -> Tensor:
        """`batch.rows` of what there is."""
        raise NotImplementedError


OPTIMIZERS: Registry[KnownOptimizer] = Registry("known optimizer", "stabdiag.stats.optimizers")


def declare(cls: type[KnownOptimizer]) -> type[KnownOptimizer]:
    OPTIMIZERS.add(cls())
    return cls


@cache
def _by_class() -> dict[type, KnownOptimizer]:
    """Those that this version of torch has."""
    found = ((getattr(torch.optim, entry.id, None), entry) for entry in OPTIMIZERS)
    return {cls: entry for cls, entry in found if cls is not None}


def known_optimizer(optimizer: torch.optim.Optimizer) -> KnownOptimizer | None:
    """Whose step it takes: that of a class of torch, its own or inherited. A subclass that has a step of its
    own may do anything with the state."""
    kind = type(optimizer)
    if not str(kind.step.__module__).startswith("torch.optim"):
        return None
    known = _by_class()
    return next((known[cls] for cls in kind.__mro__ if cls in known), None)
