"""What every probe is: it hears of a training step as it goes, and hands over what it measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.clipping import Clip
from stabdiag.capture.row import Harvest
from stabdiag.capture.subject import Subject
from stabdiag.core.registry import Registry
from stabdiag.core.tier import Tier

P = TypeVar("P", bound="type[Probe]")


class Probe:
    """A module of `capture.probes` declares one with `@probe`.

    In steps of a tier below its own it hears nothing between `arm` and `harvest`. All calls go through
    the guard, under `id`.
    """

    id: ClassVar[str]
    tier: ClassVar[Tier] = Tier.STANDARD
    scalars: ClassVar[tuple[str, ...]] = ()
    """Statistics of kind `run` that it adds: the keys of `Measured.scalars`."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def on_change(self) -> None:
        """Modules, parameters or optimizers have changed."""

    def arm(self, tier: Tier) -> None:
        """A step of this tier is about to begin; hooks for it are set here, of the standard tier or above.
        Not called between steps of tier NONE."""

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """The script is about to call a module with gradients enabled."""

    def on_evaluation(self, prefix: str, module: nn.Module) -> None:
        """The script is about to call a module with gradients disabled."""

    def on_exchange(self) -> None:
        """Processes are about to wait for each other, before the script's call reaches the module."""

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        """`scale` is the gradient scaler's, 0-d, where there is one."""

    def on_backward_end(self) -> None: ...

    def on_clip(self, clip: Clip) -> None:
        """Gradients are about to be scaled down to a norm."""

    def on_step_begin(self, optimizer: torch.optim.Optimizer, indices: Sequence[int]) -> None:
        """`indices` into `subject.parameters`."""

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        """The optimizer has used the gradients, and they are still there. None where there is no optimizer,
        and each backward pass is a step."""

    def on_shadow(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        """These are about to run once more, eagerly, in the place of compiled code; returns the hooks that
        were set for it."""
        return []

    def disarm(self) -> None:
        """Takes off the hooks that were set for the step."""

    def harvest(self) -> Harvest | None:
        """What was measured since the last harvest, at the end of a step."""


def hears(probe: Probe, event: str) -> bool:
    """Whether its class does anything at this event."""
    return getattr(type(probe), event) is not getattr(Probe, event)


PROBES: Registry[type[Probe]] = Registry("probe", "stabdiag.capture.probes")


def probe(cls: P) -> P:
    PROBES.add(cls)
    return cls
