"""Whether the parts of a model that differ between training and evaluation are in the right mode."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier

STATISTICS = ("training", "evaluating", "evaluations")


@probe
class ModeProbe(Probe):
    """Kind `mode`, a site for each module that the script calls, and for each below that does something else
    in evaluation than in training: dropout, normalization with running statistics.

    training     share of the step's calls with gradients at which it was in training mode
    evaluating   share of the calls without gradients, since the step before, at which it was
    evaluations  number of these calls

    A row is written in steps of the standard tier, and whenever it differs from the last one. A site is
    `trainable` where a parameter in it, or beside it, is.
    """

    id = "mode"
    tier = Tier.FAST

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._modules: list[nn.Module] = []
        self._sites: tuple[Site, ...] = ()
        self._counts = np.zeros((2, 0))
        self._calls = [0, 0]
        self._written: Any = None
        self._tier = Tier.NONE

    def on_change(self) -> None:
        known = {**self.subject.modules, **self.subject.compiled}
        called = {id(module) for module, _ in self.subject.entries.values()}
        chosen = {n: m for n, m in known.items() if id(m) in called or _depends_on_mode(m)}
        self._modules = list(chosen.values())
        self._sites = tuple(
            Site(
                "mode",
                name,
                type(module).__name__,
                order=self.subject.order.get(name, -1),
                trainable=_trained(name, known),
                # The modules that the script calls are there for their own flag.
                optimized=_depends_on_mode(module),
            )
            for name, module in chosen.items()
        )
        self._counts, self._calls = np.zeros((2, len(self._modules))), [0, 0]

    def arm(self, tier: Tier) -> None:
        self._tier = tier

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._count(0)

    def on_evaluation(self, prefix: str, module: nn.Module) -> None:
        self._count(1)

    def _count(self, which: int) -> None:
        self._counts[which] += [module.training for module in self._modules]
        self._calls[which] += 1

    def harvest(self) -> Harvest | None:
        counts, calls = self._counts, self._calls
        self._counts, self._calls = np.zeros((2, len(self._modules))), [0, 0]
        if not calls[0] or len(self._modules) < 2:
            return None
        with np.errstate(invalid="ignore"):
            training, evaluating = counts / np.array(calls)[:, None]
        block = np.stack([training, evaluating, np.full(len(training), float(calls[1]))])
        state = block.tobytes()
        if state == self._written and self._tier < Tier.STANDARD:
            return None
        self._written = state
        return Harvest({}, partial(self._finish, self._sites, block.astype(np.float32)))

    def _finish(self, sites: tuple[Site, ...], block: Any, _arrays: Arrays, _scale: float) -> Measured:
        columns = dict(zip(STATISTICS, block, strict=True)) | {"nonfinite": np.zeros(len(sites), np.float32)}
        return Measured([Row("mode", sites, columns)])


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, _NormBase):
        return module.track_running_stats
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    # Dropout that is applied by a function leaves its rate behind, by any name.
    values = (value for name, value in vars(module).items() if "drop" in name.lower())
    return any(isinstance(value, float) and 0 < value < 1 for value in values)


def _trained(name: str, known: Mapping[str, nn.Module]) -> bool:
    """Whether anything is trained in the module, or, if it holds no parameter, in the one around it."""
    while True:
        module = known.get(name)
        parameters = [] if module is None else list(module.parameters())
        if parameters:
            return any(parameter.requires_grad for parameter in parameters)
        if "." not in name:
            return True
        name = name.rpartition(".")[0]
