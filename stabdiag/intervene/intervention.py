"""What an intervention is, and the decorator that declares one. Nothing here needs torch: names and values
are checked before a target is started."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from stabdiag.core.errors import StabdiagError
from stabdiag.core.registry import Registry

if TYPE_CHECKING:
    from stabdiag.capture.clipping import Clip
    from stabdiag.intervene.forward import Forward
    from stabdiag.intervene.ledger import Scene
    from stabdiag.intervene.step import Step


@dataclass(frozen=True, slots=True)
class Value:
    """The number that an intervention takes: more than `above` and at most `most`.

    `default` serves where none is given; without it one has to be.
    """

    meaning: str
    above: float = -math.inf
    most: float = math.inf
    default: float | None = None
    whole: bool = False

    def check(self, id: str, value: float) -> None:
        fits = self.above < value <= self.most and math.isfinite(value)
        if not fits or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise StabdiagError(f"{id} takes {kind}{self._range()}: {self.meaning}; not {value:g}")

    def _range(self) -> str:
        least = "" if self.above == -math.inf else f" above {self.above:g}"
        most = "" if self.most == math.inf else f"{' and' if least else ''} up to {self.most:g}"
        return least + most


class Intervention:
    """A module of `intervene.interventions` declares one with `@intervention`; its docstring is its
    documentation.

    The methods are called in the order in which they stand, once a step and optimizer, and only from the
    step on that was asked for. What they change through `Step.set` lasts for the step; scheduler and script
    find their own numbers.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    takes: ClassVar[Value | None]
    advice: ClassVar[tuple[str, ...]]
    """Names under which fixes advise its value."""

    decides: ClassVar[bool] = False
    """Whether what it does depends on the gradients, so that all processes have to see the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    @classmethod
    def advised(cls, runtime: Mapping[str, float], onset: int) -> tuple[str, ...]:
        """How it is asked for, to do what a fix advises by its `runtime` numbers against a fault that began
        in the step `onset`."""
        if cls.takes is None:
            return (cls.id,)
        named = [runtime[name] for name in cls.advice if name in runtime]
        value = next(iter(named or runtime.values()), cls.takes.default)
        return (cls.id if value is None else f"{cls.id}={value:.6g}",)

    def on_forward(self, forward: Forward) -> None:
        """The model is about to be called."""

    def on_backward(self, forward: Forward, roots: Any) -> None:
        """The backward pass from `roots` is about to begin."""

    def on_clip(self, scene: Scene, clip: Clip) -> float:
        """The script is about to clip gradients; returns the norm to clip them at."""
        return clip.max_norm

    def before_step(self, step: Step) -> None:
        """The optimizer is about to step; it may be yet to ask for the gradients."""

    def on_gradients(self, step: Step) -> None:
        """The gradients are as the optimizer will use them: unscaled, and clipped by the script."""

    def after_step(self, step: Step) -> None:
        """The weights have moved."""

    def end(self) -> None:
        """Takes everything back that would stay."""


INTERVENTIONS: Registry[type[Intervention]] = Registry("intervention", "stabdiag.intervene.interventions")
I = TypeVar("I", bound="type[Intervention]")  # noqa: E741


def intervention(
    id: str, *, title: str, takes: Value | None = None, advice: tuple[str, ...] = ()
) -> Callable[[I], I]:
    """`id` is that of the fix."""

    def declare(cls: I) -> I:
        cls.id, cls.title, cls.takes, cls.advice = id, title, takes, advice
        INTERVENTIONS.add(cls)
        return cls

    return declare


def usage(entry: type[Intervention]) -> str:
    """How it is asked for: `--apply lower-learning-rate=VALUE`."""
    optional = entry.takes is not None and entry.takes.default is not None
    value = "" if entry.takes is None else "[=VALUE]" if optional else "=VALUE"
    return f"--apply {entry.id}{value}"


def described(entry: type[Intervention]) -> str:
    """Its documentation."""
    return inspect.getdoc(entry) or ""
