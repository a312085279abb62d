"""Writes to the parameters between one step of an optimizer and the next."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.subject import Subject
from stabdiag.core.tier import Tier

HABIT = 8
"""Times after which a parameter is known to be written to by the script: a target network, an average."""
NAMED = 5


@probe
class OverwriteProbe(Probe):
    """An event `overwritten` at the first optimizer step after parameters were written to in place by
    anything but an optimizer: `names` of the first five, `count`, and their `share` of all elements.

    It compares the counts that autograd keeps of writes in place, not values: it costs no pass over them, and
    an average that is put in and taken out again shows as well. Writes through `.data` are not counted there.

    Reference: PyTorch, Autograd mechanics, In-place correctness checks.
    """

    id = "overwrites"
    tier = Tier.NONE

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._watched: dict[int, list[int]] = {}
        self._counts: dict[int, list[int]] = {}
        self._times: dict[int, int] = {}

    def on_change(self) -> None:
        for of_all in (self._watched, self._counts, self._times):
            of_all.clear()

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        before = self._counts.get(id(optimizer))
        if before is None:
            return
        watched = self._watched[id(optimizer)]
        now = self._count(watched)
        if now != before:
            self._tell([i for i, old, new in zip(watched, before, now, strict=True) if old != new])
            self._watched[id(optimizer)] = [i for i in watched if self._times.get(i, 0) < HABIT]

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        if optimizer is not None:
            watched = self._watched.setdefault(id(optimizer), self._to_watch(indices))
            self._counts[id(optimizer)] = self._count(watched)

    def _to_watch(self, indices: Sequence[int]) -> list[int]:
        """What no optimizer holds is looked at with the first of them."""
        if self.subject.primary != list(indices):
            return list(indices)
        own = set(indices)
        held = {i for optimizer in self.subject.optimizers for i in self.subject.held_by(optimizer)}
        return [i for i in range(len(self.subject.parameters)) if i not in held or i in own]

    def _count(self, watched: Sequence[int]) -> list[int]:
        parameters = self.subject.parameters
        return [parameters[i]._version for i in watched]

    def _tell(self, written: Sequence[int]) -> None:
        for i in written:
            self._times[i] = self._times.get(i, 0) + 1
        sizes = [p.numel() for p in self.subject.parameters]
        self.subject.event(
            "overwritten",
            names=[self.subject.sites[i].name for i in written[:NAMED]],
            count=len(written),
            share=round(sum(sizes[i] for i in written) / max(sum(sizes), 1), 6),
        )
