"""What the state of the optimizer says of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import dense, local, numbers
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.adam import STATISTICS, adam_statistics
from stabdiag.stats.sample import slabs

SAMPLE = 1024
ADAM = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam)
KNOWN = (*ADAM, torch.optim.SGD)
UNKNOWN = "its state is not one that is known"
STEP, COSINE, MOMENTUM = (STATISTICS.index(name) for name in ("step", "cosine", "momentum"))


def steps_as_torch(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step is torch's own: a subclass may do anything with the state."""
    return str(type(optimizer).step.__module__).startswith("torch.optim")


class _Part(NamedTuple):
    """A sample of one parameter's gradient and state, all of them flat and of one size. `weight` is by what
    the norm of the sample becomes that of the whole; `settings` those of Adam."""

    place: int
    tensors: list[torch.Tensor]
    weight: float
    settings: tuple[Any, ...]


@probe
class OptimizerProbe(Probe):
    """Kind `optimizer`, a site a parameter.

    rms        RMS_t of Adam's family: the gradient, as the optimizer saw it, against its second moment
    eps_share  share of coordinates where the root of the second moment is below epsilon
    step       root mean square of the update, in learning rates, without weight decay
    cosine     of the gradient with the first moment
    momentum   norm of the first moment, or of SGD's momentum buffer

    Of tensors above 1,024 elements as many are looked at, in 64 slabs. Adam's family is told by the
    optimizer's class being torch's own and its state; of others nothing is guessed, and the coverage
    says so.
    """

    id = "optimizer"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites: list[Site] = []
        self._taken: list[tuple[list[int], torch.Tensor]] = []
        self._told: set[str] = set()

    def on_change(self) -> None:
        self._sites = [replace(site, kind="optimizer") for site in self.subject.sites]

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if optimizer is None or not indices:
            return
        if not (isinstance(optimizer, KNOWN) and steps_as_torch(optimizer)):
            self._tell_unknown(type(optimizer).__name__)
            return
        by_device: dict[torch.device, list[_Part]] = {}
        for part in _parts(optimizer, {id(self.subject.parameters[i]): i for i in indices}):
            by_device.setdefault(part.tensors[0].device, []).append(part)
        measure = _adam if isinstance(optimizer, ADAM) else _sgd
        for parts in by_device.values():
            rows = measure(parts)
            rows[:, MOMENTUM] *= numbers([part.weight for part in parts], rows.device)
            if isinstance(optimizer, torch.optim.NAdam | torch.optim.RAdam):
                rows[:, STEP] = float("nan")  # they weigh the moments in their own ways
            self._taken.append(([part.place for part in parts], rows))

    def _tell_unknown(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self.subject.event("coverage", what=f"the optimizer {name}", because=UNKNOWN)

    def harvest(self) -> Harvest | None:
        taken, self._taken = self._taken, []
        if not taken:
            return None
        rows = torch.cat([values.to(taken[0][1].device) for _, values in taken])
        return Harvest({"rows": rows}, partial(self._finish, [i for indices, _ in taken for i in indices]))

    def _finish(self, indices: list[int], arrays: Arrays, _scale: float) -> Measured:
        block = np.full((len(STATISTICS) + 1, len(self._sites)), np.nan, np.float32)
        block[:-1, indices] = arrays["rows"].T
        block[-1, indices] = ~np.isfinite(arrays["rows"][:, MOMENTUM])
        columns = dict(zip((*STATISTICS, "nonfinite"), block, strict=True))
        return Measured([Row("optimizer", self._sites, columns)])


def _parts(optimizer: torch.optim.Optimizer, wanted: Mapping[int, int]) -> Iterator[_Part]:
    """Of those parameters that have a state; `wanted` is id -> index."""
    adam = isinstance(optimizer, ADAM)
    names = ("exp_avg", "exp_avg_sq") if adam else ("momentum_buffer",)
    for group in optimizer.param_groups:
        betas = tuple(map(float, (*group["betas"], group["eps"]))) if adam else ()
        for parameter in group["params"]:
            index, state = wanted.get(id(parameter)), optimizer.state.get(parameter) or {}
            if index is None or (adam and "step" not in state):
                continue
            samples = _samples(parameter.grad, *(state.get(name) for name in names))
            if samples is not None:
                size = samples[0].numel()
                weight = float((local(parameter).numel() / size) ** 0.5)
                yield _Part(index, samples, weight, (size, state.get("step"), *betas))


def _samples(*tensors: torch.Tensor | None) -> list[torch.Tensor] | None:
    """The same sample of each; None where one is missing, or not a plain tensor of the same shape."""
    held = [local(t).detach() for t in tensors if isinstance(t, torch.Tensor)]
    same = len(held) == len(tensors) and all(t.shape == held[0].shape for t in held)
    plain = same and all(dense(t) and t.is_floating_point() and t.numel() for t in held)
    return [slabs(t.contiguous(), SAMPLE) for t in held] if plain else None


def _rows(parts: Sequence[_Part], number: int, rest: float = 0.0) -> torch.Tensor:
    """The tensors of that number as float32 [parts, coordinates]; `rest` fills the shorter ones up."""
    samples = [part.tensors[number].reshape(-1).to(torch.float32) for part in parts]
    return pad_sequence(samples, batch_first=True, padding_value=rest)


def _adam(parts: Sequence[_Part]) -> torch.Tensor:
    device = parts[0].tensors[0].device
    sizes, steps, beta1, beta2, eps = zip(*(part.settings for part in parts), strict=True)
    counts = [step for step in steps if isinstance(step, torch.Tensor) and step.device.type != "cpu"]
    if counts:  # read on the device, without waiting for it
        count = torch.stack([torch.as_tensor(step).to(device, torch.float32) for step in steps])
    else:
        count = numbers([float(step) for step in steps], device)
    known = (numbers(column, device) for column in (beta1, beta2, eps))
    settings = torch.stack([numbers(sizes, device), count, *known], dim=1)
    return adam_statistics(_rows(parts, 0), _rows(parts, 1), _rows(parts, 2, float("inf")), settings)


def _sgd(parts: Sequence[_Part]) -> torch.Tensor:
    gradient, momentum = _rows(parts, 0), _rows(parts, 1)
    rows = torch.full((len(parts), len(STATISTICS)), float("nan"), device=gradient.device)
    length = momentum.norm(dim=1)
    tiny = torch.finfo(torch.float32).tiny
    rows[:, COSINE] = (gradient * momentum).sum(1) / (gradient.norm(dim=1) * length).clamp(min=tiny)
    rows[:, MOMENTUM] = length
    return rows
