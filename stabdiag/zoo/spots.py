"""Places and times at which a fault may be planted, drawn from the training's own random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stabdiag.zoo.training import Batch, Training

POSITIONS = ("positions.weight", "places.weight", "position", "pos_embed", "positional_embedding")
"""Names of what is learned for each position, [..., positions, width]."""

QUERIES = {"qkv.weight": 3, "in_proj_weight": 3, "query.weight": 1, "to_q.weight": 1}
"""Names of the matrices that make queries, and how many parts of equal size they have, queries first."""


def moment(training: Training, low: float = 0.35, high: float = 0.6) -> int:
    """A step between two shares of the run."""
    return training.random.randint(int(low * training.steps), int(high * training.steps))


def block(training: Training) -> str:
    return training.random.choice(training.parts.blocks)


def matrix(training: Training, within: str) -> tuple[str, nn.Parameter]:
    """A trainable matrix (or stack of them) below the module `within`."""
    found = [
        (name, p)
        for name, p in training.model.named_parameters()
        if name.startswith(f"{within}.") and p.dim() >= 2 and p.requires_grad
    ]
    return training.random.choice(found)


def queries(training: Training) -> tuple[str, Tensor]:
    """The attention module of a block that has one, and the rows of its weights that make queries, as a
    view."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, p in training.model.named_parameters():
        ending = next((e for e in QUERIES if name.endswith(e)), None)
        within = next((block for block in training.parts.blocks if name.startswith(f"{block}.")), None)
        if ending and within:
            owner = name.removesuffix(ending).removesuffix(".")
            found.setdefault(within, (owner, p.data[: len(p) // QUERIES[ending]]))
    return found[training.random.choice(list(found))]


def positions(model: nn.Module) -> Tensor:
    """What is learned for each position, a view [..., positions, width]."""
    return next(p.data for name, p in model.named_parameters() if name.endswith(POSITIONS))


def closing(training: Training, within: str) -> nn.Linear | nn.Conv2d:
    """The last layer of the block `within`: what closes its last branch, where it has several."""
    layers = [
        m for m in training.model.get_submodule(within).modules() if isinstance(m, nn.Linear | nn.Conv2d)
    ]
    return layers[-1]


def rectified(training: Training) -> tuple[str, nn.Parameter]:
    """A module that holds a ReLU, and the bias of what goes straight into that."""
    found = [
        (name, before.bias)
        for name, module in training.model.named_modules()
        for before, after in pairwise(module.children())
        if isinstance(after, nn.ReLU) and isinstance(getattr(before, "bias", None), nn.Parameter)
    ]
    return training.random.choice(found)


def gradients(training: Training) -> set[str]:
    """Names of the parameters that the loss of a batch reaches. Leaves no trace in the training."""
    model = training.model
    names, weights = zip(*model.named_parameters(), strict=True)
    with torch.random.fork_rng():
        model.eval()
        loss = training.loss(training.parts.batches(0))
        model.train()
    given = torch.autograd.grad(loss, weights, allow_unused=True)
    return {name for name, gradient in zip(names, given, strict=True) if gradient is not None}


def head(training: Training) -> tuple[str, nn.Linear]:
    """The last linear layer."""
    found = [(n, m) for n, m in training.model.named_modules() if isinstance(m, nn.Linear)]
    return found[-1]


def owner(name: str) -> str:
    """The module of a parameter."""
    return name.rpartition(".")[0]


def once(training: Training, step: int, action: Callable[[], None]) -> None:
    """Calls `action` before step `step`."""

    def hook(at: int) -> None:
        if at == step:
            action()

    training.before.append(hook)


def always_from(training: Training, step: int, action: Callable[[], None]) -> None:
    """Calls `action` before each step from `step` on."""

    def hook(at: int) -> None:
        if at >= step:
            action()

    training.before.append(hook)


def at_batches(
    training: Training, chosen: Callable[[int], bool], change: Callable[[int, Batch], Batch]
) -> None:
    """Changes the batches whose numbers are chosen."""
    sound = training.parts.batches

    def batches(index: int) -> Batch:
        batch = sound(index)
        return change(index, batch) if chosen(index) else batch

    training.parts.batches = batches


def scaled(weight: Tensor, factor: float) -> Callable[[], None]:
    """An action that multiplies a weight in place, as training or the hardware may: autograd does not count
    what is written through `.data`."""

    def action() -> None:
        weight.data.mul_(factor)

    return action


def multiplied(training: Training, weights: set[nn.Parameter], multiplier: float) -> None:
    """Gives these parameters a group of their own, with a multiple of the learning rate."""
    make = training.make_optimizer

    def split(parameters: Sequence[nn.Parameter], lr: float) -> Optimizer:
        optimizer = make(parameters, lr)
        for group in list(optimizer.param_groups):
            chosen = [p for p in group["params"] if p in weights]
            if chosen:
                group["params"] = [p for p in group["params"] if p not in weights]
                optimizer.add_param_group({**group, "params": chosen, "multiplier": multiplier})
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    training.make_optimizer = split


def continued(block: nn.Module, by: nn.Module) -> None:
    """Lets the output of `block` go through the module `by` too, as if its class had been written so: with a
    hook on it, it would be another kind of module to the recorder."""
    cls = type(block)
    if isinstance(block, nn.Sequential):
        block.add_module("continued", by)
        return

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.get_submodule("continued")(cls.forward(self, *args, **kwargs))

    block.__class__ = type(cls.__name__, (cls,), {"forward": forward})
    block.add_module("continued", by)
