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
        self._counts: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._unheld: list[int] = []
        self._begun: Sequence[int] = ()

    def on_change(self) -> None:
        self._counts.clear()
        self._times.clear()
        held = {i for optimizer in self.subject.optimizers for i in self.subject.held_by(optimizer)}
        self._unheld = [i for i in range(len(self.subject.parameters)) if i not in held]

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        parameters, counts = self.subject.parameters, self._counts
        for i in self._begun:  # a step whose end was not told, as it used the gradients of another's pass
            counts.pop(i, None)
        watched = self._begun = self._watched(indices)
        written = [i for i in watched if i in counts and parameters[i]._version != counts[i]]
        if written:
            self._tell(written)

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        # Of optimizers that share a parameter the last one to step has written to it.
        parameters, self._begun = self.subject.parameters, ()
        self._counts.update((i, parameters[i]._version) for i in self._watched(indices))

    def _watched(self, indices: Sequence[int]) -> Sequence[int]:
        """What no optimizer holds is looked at with the first of them."""
        return [*indices, *self._unheld] if list(indices) == self.subject.primary else indices

    def _tell(self, written: Sequence[int]) -> None:
        written = [i for i in written if self._times.get(i, 0) < HABIT]
        if not written:
            return
        for i in written:
            self._times[i] = self._times.get(i, 0) + 1
        sizes = [p.numel() for p in self.subject.parameters]
        self.subject.event(
            "overwritten",
            names=[self.subject.sites[i].name for i in written[:NAMED]],
            count=len(written),
            share=round(sum(sizes[i] for i in written) / max(sum(sizes), 1), 6),
        )
