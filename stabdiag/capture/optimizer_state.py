"""What an optimizer holds of its parameters, sampled, and put side by side to be measured at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from stabdiag.capture.tensors import dense, local, numbers
from stabdiag.stats.optimizer import Batch, Group, KnownOptimizer
from stabdiag.stats.real import real
from stabdiag.stats.sample import slabs

SAMPLE = 1024
GRADIENT, DECAY = "gradient", "decay"


class Part(NamedTuple):
    """One parameter: `place` is its index, `tensors` samples of its gradient and state, flat and of one size;
    `weight` is by what the norm of a sample becomes that of the whole. `sign` is -1 where the optimizer
    maximizes."""

    place: int
    tensors: Mapping[str, torch.Tensor]
    weight: float
    sign: float
    settings: tuple[Any, ...]

    @property
    def alike(self) -> tuple[Any, ...]:
        """Parts in which this is the same can be measured together."""
        return self.tensors[GRADIENT].device, *self.tensors


def decays(
    known: KnownOptimizer, optimizer: torch.optim.Optimizer, wanted: Mapping[int, int]
) -> dict[int, torch.Tensor]:
    """Samples of what weight decay adds to the gradients in the step that is about to be taken, by index;
    `wanted` is id -> index."""
    found: dict[int, torch.Tensor] = {}
    for group in optimizer.param_groups:
        if not _in_gradient(known, group):
            continue
        held = {wanted[id(p)]: p for p in group["params"] if id(p) in wanted and p.grad is not None}
        samples = {i: one for i, p in held.items() if (one := _sample(p)) is not None}
        if samples:
            products = torch._foreach_mul(list(samples.values()), group["weight_decay"])
            found.update(zip(samples, products, strict=True))
    return found


def _in_gradient(known: KnownOptimizer, group: Group) -> bool:
    """Whether weight decay is added to the gradients."""
    decay = group.get("weight_decay", 0)
    if known.decoupled or group.get("decoupled_weight_decay"):
        return False
    return isinstance(decay, torch.Tensor) or decay != 0


def parts(
    known: KnownOptimizer,
    optimizer: torch.optim.Optimizer,
    wanted: Mapping[int, int],
    added: Mapping[int, torch.Tensor],
) -> Iterator[Part]:
    """Of those parameters that have a gradient and a state; `wanted` is id -> index, and `added` what weight
    decay added to their gradients."""
    for group in optimizer.param_groups:
        coupled = _in_gradient(known, group)
        for parameter in group["params"]:
            index, state = wanted.get(id(parameter)), optimizer.state.get(parameter)
            if index is None or not state or (coupled and index not in added):
                continue
            tensors = _tensors(known, parameter, {key: state.get(key) for key in known.keeps(group, state)})
            if tensors:
                weight = float((real(local(parameter)).numel() / tensors[GRADIENT].numel()) ** 0.5)
                if coupled:
                    tensors[DECAY] = added[index]
                sign = -1.0 if group.get("maximize") else 1.0
                yield Part(index, tensors, weight, sign, known.settings(group, state))


def _tensors(
    known: KnownOptimizer, parameter: torch.Tensor, state: Mapping[str, torch.Tensor | None]
) -> dict[str, torch.Tensor]:
    """The same sample of the gradient and of all that is kept; empty where one is missing, or not plain."""
    if parameter.grad is None:
        return {}
    sample = _sample(parameter.grad)
    held = {key: real(local(one).detach()) for key, one in state.items() if isinstance(one, torch.Tensor)}
    if sample is None or len(held) < len(state) or not all(map(_plain, held.values())):
        return {}
    if known.whole and local(parameter).numel() != parameter.numel():
        return {}
    found = known.coordinates(real(local(parameter.grad).detach()), held, SAMPLE)
    return {GRADIENT: sample, **found} if found else {}


def _sample(tensor: torch.Tensor) -> torch.Tensor | None:
    own = real(local(tensor).detach())
    return slabs(own.contiguous(), SAMPLE) if _plain(own) else None


def _plain(tensor: torch.Tensor) -> bool:
    return dense(tensor) and tensor.is_floating_point() and tensor.numel() > 0


def measure(known: KnownOptimizer, alike: Sequence[Part]) -> torch.Tensor:
    """The statistics of these parts, a row each, on their device."""
    tensors = {name: _rows(alike, name, name in known.divides_by) for name in alike[0].tensors}
    gradient, decay = tensors.pop(GRADIENT), tensors.pop(DECAY, None)
    device = gradient.device
    if any(part.sign < 0 for part in alike):
        gradient = gradient * numbers([part.sign for part in alike], device)[:, None]
    if decay is not None:
        gradient = gradient + decay
    sizes = numbers([part.tensors[GRADIENT].numel() for part in alike], device)
    columns = known.coefficients(*_columns([part.settings for part in alike], device))
    made = [column.to(device, torch.float32, non_blocking=True)[:, None] for column in columns]
    return known.measure(Batch(gradient, tensors, sizes[:, None], tuple(made)))


def _rows(alike: Sequence[Part], name: str, divides: bool) -> torch.Tensor:
    """The tensors of that name as float32 [parts, coordinates]."""
    samples = [part.tensors[name].reshape(-1).to(torch.float32) for part in alike]
    return pad_sequence(samples, batch_first=True, padding_value=float("inf") if divides else 0.0)


def _columns(settings: Sequence[tuple[Any, ...]], device: torch.device) -> list[torch.Tensor]:
    """[parts] each, in double precision: on the host, unless one lies on the device, where all are then, so
    that nothing is waited for."""
    columns = list(zip(*settings, strict=True))
    if not any(_elsewhere(one) for column in columns for one in column):
        return [torch.tensor([float(one) for one in column], dtype=torch.float64) for column in columns]
    kind = torch.float32 if device.type == "mps" else torch.float64
    return [
        torch.stack([torch.as_tensor(one).to(device, kind).reshape(()) for one in column])
        if any(map(_elsewhere, column))
        else numbers([float(one) for one in column], device, kind)
        for column in columns
    ]


def _elsewhere(setting: Any) -> bool:
    return isinstance(setting, torch.Tensor) and setting.device.type != "cpu"
