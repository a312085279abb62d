"""What the model is made of, and how a signal travels through its depth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.memory import once
from stabdiag.analysis.step_size import matrix_ratio
from stabdiag.core.run import Run
from stabdiag.core.site import Site

NORMALIZATIONS = ("Norm", "BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm", "InstanceNorm")
RECTIFIERS = ("ReLU", "ReLU6", "Threshold")
SATURATING = ("Sigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Softsign")
RECURRENT = ("RNN", "RNNCell", "LSTM", "LSTMCell", "GRU", "GRUCell")


@once
def modules(run: Run) -> dict[str, str]:
    """Name -> type of all modules that were seen, by their outputs or their parameters."""
    found: dict[str, str] = {}
    for kind in ("output", "weight", "grad"):
        for site in run.sites(kind):
            if site.module_type:
                found.setdefault(site.module, site.module_type)
    return found


def of_type(run: Run, types: Iterable[str]) -> list[str]:
    """Names of the modules whose type is one of `types`."""
    wanted = tuple(types)
    return [name for name, kind in modules(run).items() if kind in wanted]


def normalized(run: Run) -> bool | None:
    """Whether the model has any normalization layer; None where the types are unknown."""
    types = set(modules(run).values())
    if not types:
        return None
    return any(word in kind for kind in types for word in NORMALIZATIONS)


def matrices(sites: Iterable[Site]) -> list[int]:
    """Indices of the weight matrices among parameter sites, in forward order."""
    listed = [(site.order, i) for i, site in enumerate(sites) if len(site.shape) >= 2 or not site.shape]
    return [i for _, i in sorted(listed)]


@dataclass(frozen=True)
class Slope:
    """Growth of a norm with depth: log10 a layer from input to output, the share of its variance that
    a straight line explains, and the number of layers."""

    per_layer: float
    straightness: float
    layers: int


def gradient_slope(run: Run, step: int, reach: int = 10) -> Slope | None:
    """The slope of the weight matrices' gradient norms in the `reach` steps from `step` on."""
    if "grad.norm" not in run:
        return None
    table = run.window(max(step - 1, 0), step + reach).table("grad.norm")
    norms = table.values[:, matrices(table.sites)]
    return _slope(np.where(norms > 0, norms, np.nan))


def activation_slope(run: Run, step: int, reach: int = 10) -> Slope | None:
    """The slope of the outputs' rms in the `reach` steps from `step` on."""
    if "output.rms" not in run:
        return None
    table = run.window(max(step - 1, 0), step + reach).table("output.rms")
    order = np.argsort([site.order for site in table.sites], kind="stable")
    return _slope(np.where(table.values[:, order] > 0, table.values[:, order], np.nan))


def _slope(norms: NDArray[np.float32]) -> Slope | None:
    logs = np.log10(np.where(np.isfinite(norms), norms, np.nan).astype(np.float64))
    known = ~np.isnan(logs).all(axis=0) if logs.size else np.zeros(0, dtype=bool)
    depth = np.nanmedian(logs[:, known], axis=0) if known.any() else np.zeros(0)
    if len(depth) < 4:
        return None
    place = np.arange(len(depth))
    per_layer = float(np.polyfit(place, depth, 1)[0])
    spread = float(np.std(depth))
    straightness = 0.0 if spread < 1e-9 else float(np.corrcoef(place, depth)[0, 1] ** 2)
    return Slope(per_layer, straightness, len(depth))


def learns_normally(run: Run, first: int, last: int) -> float | None:
    """The median update ratio over first..last where it is a healthy one (1e-4 to 0.05), else None."""
    ratios = matrix_ratio(run, first, last)
    middle = float(np.median(ratios.values)) if len(ratios) else 0.0
    return middle if 1e-4 <= middle <= 0.05 else None
