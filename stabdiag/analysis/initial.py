"""Parameters that hold what the memory held before, rather than initial values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stabdiag.analysis.memory import once
from stabdiag.core.run import Run
from stabdiag.core.site import Site

LINEAR = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "Bilinear")
"""Modules of one kind, whose weights and outputs can be compared over the depth."""

LARGEST = 1e6
LARGEST_OF_LINEAR = 1e3
"""No initialization draws these: a linear layer of 64 inputs would multiply a signal by thousands."""

SOME = 3
"""Steps at which a gradient of zero has to be seen before it is one that stays."""

SMALLEST = 1e-20
"""Matrices of nothing larger, zero apart, are bits that were meant for something else."""


class Uninitialized(NamedTuple):
    """`sites` in forward order, what they hold, and the largest element of the first."""

    sites: tuple[Site, ...]
    what: str
    absmax: float
    fatal: bool


def never_initialized(run: Run) -> Uninitialized | None:
    """None where all parameters began with values that an initialization may give, or it is not known.

    A few matrices of zeros are meant: output layers, gates and low-rank updates start there. Where most of
    all matrices do, nothing tells their units apart, and no gradient comes through.
    """
    if "initial.absmax" not in run:
        return None
    table = run.table("initial.absmax")
    if not len(table.steps) or not len(table.sites):
        return None
    absmax = table.values[0].astype(np.float64)
    lost = run.table("initial.nonfinite").values[0] > 0
    linear = np.array([site.module_type in LINEAR for site in table.sites])
    matrix = np.array([len(site.shape) >= 2 for site in table.sites])
    with np.errstate(invalid="ignore"):
        huge = absmax > np.where(linear, LARGEST_OF_LINEAR, LARGEST)
        tiny = matrix & (absmax > 0) & (absmax < SMALLEST)
        zero = matrix & (absmax == 0)
    if lost.any():
        return _found(table.sites, lost | huge, absmax, "values that are not finite", fatal=True)
    if huge.any():
        return _found(table.sites, huge, absmax, "values that no initialization draws", fatal=True)
    if tiny.any():
        return _found(table.sites, tiny, absmax, "nothing but numbers next to zero", fatal=False)
    if zero.sum() >= 2 and zero.sum() > 0.5 * matrix.sum():
        return _found(table.sites, zero, absmax, "nothing but zeros", fatal=False)
    return None


@once
def stuck_at_zero(run: Run) -> tuple[Site, ...]:
    """Trainable matrices that began as zeros and whose gradient was exactly zero at every recorded step, in
    forward order: the two factors of a product, say, of which each multiplies the gradient of the other."""
    if "initial.absmax" not in run or "grad.norm" not in run:
        return ()
    begun, norms = run.table("initial.absmax"), run.table("grad.norm")
    if not len(begun.steps):
        return ()
    zeros = {
        site.name
        for site, largest in zip(begun.sites, begun.values[0], strict=True)
        if largest == 0 and len(site.shape) > 1
    }
    measured = np.isfinite(norms.values)
    still = (measured.sum(axis=0) >= SOME) & ~(measured & (norms.values != 0)).any(axis=0)
    found = [site for site, zero in zip(norms.sites, still, strict=True) if zero and site.name in zeros]
    return tuple(sorted((s for s in found if s.trainable), key=lambda site: site.order))


def _found(
    sites: tuple[Site, ...], chosen: np.ndarray, absmax: np.ndarray, what: str, *, fatal: bool
) -> Uninitialized:
    order = sorted(np.flatnonzero(chosen).tolist(), key=lambda i: (sites[i].order < 0, sites[i].order, i))
    return Uninitialized(tuple(sites[i] for i in order), what, float(absmax[order[0]]), fatal)
