"""What an architecture or an optimizer has, by which faults and controls are bound to those that they fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import nn

from stabdiag.zoo.architecture import Architecture
from stabdiag.zoo.optimizer import NamedOptimizer

SLOW = 0.999
"""A second moment that decays no faster is one that remembers a thousand steps."""


class Wanting(Protocol):
    """The fields of a fault or a control that say where it fits."""

    @property
    def needs(self) -> Sequence[str]: ...
    @property
    def without(self) -> Sequence[str]: ...
    @property
    def optimizers(self) -> Sequence[str]: ...
    @property
    def shape(self) -> Mapping[str, Any]: ...


def fits(
    entry: Wanting, architecture: Architecture, optimizer: NamedOptimizer, options: Iterable[str]
) -> bool:
    """Whether a combination has what is needed: the traits, and a builder that takes these `options` beside
    those of the shape."""
    has = architecture.traits
    taken = _options(architecture)
    known = traits_of(optimizer)
    return (
        all(has.intersection(need.split("|")) for need in entry.needs)
        and not has.intersection(entry.without)
        and {*entry.shape, *options} <= taken
        and all(
            not wanted or known.intersection(wanted) for wanted in (entry.optimizers, architecture.optimizers)
        )
    )


@cache
def _options(architecture: Architecture) -> frozenset[str]:
    return frozenset(inspect.signature(architecture.build).parameters)


@cache
def traits_of(optimizer: NamedOptimizer) -> frozenset[str]:
    """Its id; `adaptive` where it is of Adam's family, with `slow-moments` where the second remembers long,
    and `averages` where it mixes gradients of many steps, so that noise makes shorter ones than a constant
    gradient; `descends` where its steps are as long as gradients are, else `scale-free`; `follows` where they
    are as long as the learning rate asks for, however high that is; `decays` where it has a weight decay."""
    traits = {optimizer.id, "descends" if optimizer.descends else "scale-free"}
    if optimizer.adaptive:
        traits.add("adaptive")
    if optimizer.beta2 is not None and optimizer.beta2 >= SLOW:
        traits.add("slow-moments")
    made = optimizer.make([nn.Parameter(torch.zeros(2, 2))], 1e-3)
    betas = made.param_groups[0].get("betas")
    # NAdam's momentum is short to begin with, and the newest gradient counts most.
    if optimizer.adaptive and betas and not isinstance(made, torch.optim.NAdam):
        traits.add("averages")
    if not isinstance(made, torch.optim.Adafactor):  # its rate is 1/√t at most
        traits.add("follows")
    if any(group.get("weight_decay") for group in made.param_groups):
        traits.add("decays")
    return frozenset(traits)
