"""What the script measures of the model between the steps: the loss on data that is not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import before_forward
from stabdiag.capture.losses import LOSSES, LossCalls, mean_loss
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.replay import replaying
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import in_transform
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier

STATISTICS = ("loss", "batches", "agreement", "seconds", "training", "nonfinite")


ACTS, PARTS = 16, 8
"""Calls without gradients that no loss function follows, and stretches between steps that hold some, after
which the model is said to act. Evaluations by a measure of the script's own are fewer than the steps."""


class _Batch(NamedTuple):
    name: str
    rows: int
    measured: torch.Tensor  # loss, agreement


@probe
class EvaluationProbe(Probe):
    """Kind `evaluation`, a site a loss function, in the row of the step that follows the evaluation.

    loss       mean over the batches, weighted by their rows, in the unit of that function
    batches    how many there were
    agreement  share of the labels that the likeliest class is right of (cross-entropy)
    seconds    from the first call of the model to the last loss
    training   1 where the model was in training mode

    An evaluation is what comes after a call of the model without gradients, until the next one with them.
    Its loss is that of any of torch.nn.functional's loss functions, computed a second time. A loss that is
    written out by hand is not seen. Of evaluations of several sets in one, this is the mean.

    Where the model is called so without any loss, half as often as it is trained or more, it acts: its
    answers make what it is trained on. That is the event `acting`.
    """

    id = "evaluation"
    tier = Tier.NONE

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._handles: list[RemovableHandle] = []
        self._calls: LossCalls | None = None
        self._batches: list[_Batch] = []
        self._sites: dict[str, Site] = {}
        self._began = self._ended = 0.0
        self._training = False
        self._unseen_told = False
        self._calls_now = self._acts = self._parts = self._steps = 0
        self._acting_told = False

    def arm(self, tier: Tier) -> None:
        if not self._handles:
            called = {id(outer): outer for _, outer in self.subject.entries.values()}
            self._handles = [before_forward(outer, self._before, kwargs=False) for outer in called.values()]

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._leave()

    def _before(self, module: nn.Module, _args: Any) -> None:
        if not torch.is_grad_enabled() and not replaying() and not in_transform():
            self.subject.guard(self.id, self._enter, module)

    def _enter(self, module: nn.Module) -> None:
        self._calls_now += 1
        if self._calls is None:
            self._calls = LossCalls(self._heard)
            if not self._batches:
                self._began, self._training = perf_counter(), module.training

    def _leave(self) -> None:
        calls, self._calls = self._calls, None
        if calls is None:
            return
        calls.remove()
        if not self._batches:
            self._acts += self._calls_now
            self._parts += 1
        self._calls_now = 0
        if not self._batches and not self._training and not self._unseen_told:
            self._unseen_told = True
            self.subject.event(
                "coverage",
                what="evaluation",
                because="the model was called without gradients, and no loss function of "
                "torch.nn.functional followed",
            )

    def _heard(self, name: str, arguments: Mapping[str, Any]) -> None:
        if torch.is_grad_enabled() or replaying():
            return
        self.subject.guard(self.id, self._measure, name, arguments)
        if self.id in self.subject.guard.broken and self._calls is not None:
            self._calls.remove()

    def _measure(self, name: str, arguments: Mapping[str, Any]) -> None:
        answer, wanted = arguments["input"], arguments["target"]
        try:
            loss = mean_loss(name, arguments).detach().float()
        except (RuntimeError, ValueError, IndexError):
            return  # the script's own call is about to say why
        agreement = answer.new_full((), torch.nan, dtype=torch.float32)
        if LOSSES[name] == "cross-entropy" and not wanted.is_floating_point() and answer.dim() > 1:
            counted = wanted != arguments["ignore_index"]
            right = (answer.argmax(1) == wanted) & counted
            agreement = right.sum() / counted.sum()
        rows = answer.shape[0] if answer.dim() else 1
        self._batches.append(_Batch(LOSSES[name], rows, torch.stack([loss, agreement.to(loss.device)])))
        self._ended = perf_counter()

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._leave()

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        self._leave()

    def harvest(self) -> Harvest | None:
        batches, self._batches = self._batches, []
        self._steps += 1
        self._tell_of_acting()
        if not batches:
            return None
        device = batches[0].measured.device
        rows = torch.stack([batch.measured.to(device) for batch in batches])
        seconds = self._ended - self._began
        return Harvest({"rows": rows}, partial(self._finish, batches, seconds, self._training))

    def _tell_of_acting(self) -> None:
        often = self._parts >= PARTS and self._acts >= max(ACTS, self._steps / 2)
        if often and not self._acting_told:
            self._acting_told = True
            self.subject.event("acting", calls=self._acts, occasions=self._parts, steps=self._steps)

    def _finish(
        self, batches: list[_Batch], seconds: float, training: bool, arrays: Arrays, _scale: float
    ) -> Measured:
        for batch in batches:
            self._sites.setdefault(batch.name, Site("evaluation", batch.name))
        columns = {name: np.full(len(self._sites), np.nan, np.float32) for name in STATISTICS}
        for position, name in enumerate(self._sites):
            mine = np.array([batch.name == name for batch in batches])
            if not mine.any():
                continue
            weights = np.array([batch.rows for batch in batches], np.float64)[mine]
            loss, agreement = (weights @ arrays["rows"][mine] / weights.sum()).tolist()
            values = (loss, mine.sum(), agreement, seconds, training, not np.isfinite(loss))
            for statistic, value in zip(STATISTICS, values, strict=True):
                columns[statistic][position] = value
        return Measured([Row("evaluation", tuple(self._sites.values()), columns)])
