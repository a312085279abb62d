"""What a copy of a model loses, layer by layer: a quantised, pruned or rounded one beside the original."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Loss:
    """How far outputs y of the copy lie from outputs x of the original, all elements together.

    `error` is ‖x − y‖ / ‖x‖, `cosine` x·y / (‖x‖ ‖y‖), `snr` 20 log10(‖x‖ / ‖x − y‖) in dB: infinite where
    they are the same. `nonfinite` counts the elements that are not finite in y alone; with any of them,
    `error` is infinite and `cosine` NaN.
    """

    error: float
    cosine: float
    snr: float
    nonfinite: int = 0

    @classmethod
    def of(cls, xx: float, yy: float, xy: float, dd: float, nonfinite: int = 0) -> Loss:
        """From the sums of x², y², x·y and (x − y)² over what is finite in both."""
        if nonfinite:
            return cls(math.inf, math.nan, -math.inf, nonfinite)
        error = math.sqrt(dd / xx) if xx > 0 else 0.0 if dd == 0 else math.inf
        norms = math.sqrt(xx) * math.sqrt(yy)
        cosine = min(xy / norms, 1.0) if norms > 0 else 1.0 if dd == 0 else 0.0
        snr = math.inf if dd == 0 else 10 * math.log10(xx / dd) if xx > 0 else -math.inf
        return cls(error, cosine, snr)


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """Of one module. `accumulated` is the loss of its output when each model runs by itself, `introduced`
    when the copy's module is given the inputs that the original's got: None where it cannot be.

    `contains` tells that modules within it are listed as well, so that it introduces what they do. `order`
    is its place in the forward pass of the original.
    """

    name: str
    type_a: str
    type_b: str
    order: int
    calls: int
    contains: bool
    accumulated: Loss
    introduced: Loss | None

    @property
    def own(self) -> Loss:
        """What it introduces, as far as that is known."""
        return self.introduced or self.accumulated


@dataclass(frozen=True)
class LayerLosses:
    """`layers` are the innermost modules, the one that introduces most loss first; `containers` those around
    them, in forward order. `only_a` and `only_b` ran in one model alone."""

    layers: tuple[LayerLoss, ...]
    containers: tuple[LayerLoss, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> LayerLoss | None:
        """The models themselves; None where their outputs cannot be compared."""
        everything = (*self.containers, *self.layers)
        return next((layer for layer in everything if layer.name == ""), None)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row a module, `layers` first, with the same columns as `frame`."""
        return [dict(_columns(layer)) for layer in (*self.layers, *self.containers)]

    def frame(self) -> pd.DataFrame:
        """Pandas: a row a module, `layers` first."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(self.table)
        return frame


def _columns(layer: LayerLoss) -> Iterator[tuple[str, Any]]:
    yield from (("layer", layer.name), ("type_a", layer.type_a), ("type_b", layer.type_b))
    yield from (("order", layer.order), ("calls", layer.calls), ("contains", layer.contains))
    for what, loss in (("introduced", layer.introduced), ("accumulated", layer.accumulated)):
        for measure in ("error", "cosine", "snr"):
            yield f"{what}_{measure}", getattr(loss, measure, math.nan)
