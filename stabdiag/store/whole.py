"""Statistics of a world that do not follow from the same statistic of its processes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import KindData
from stabdiag.store.align import Aligned, Steps
from stabdiag.store.groups import Shards
from stabdiag.store.rules import Stack, hypot

COUNTED = ("run.samples", "run.tokens", "batch.fingerprint")
"""What equal batches count in once: processes that share the work on one are given the same."""


class World(Protocol):
    def __getitem__(self, kind: str) -> KindData: ...

    def __contains__(self, kind: object) -> bool: ...

    def aligned(self, kind: str) -> Aligned: ...


def batch_weights(world: World, steps: Steps, ranks: Sequence[int]) -> Stack:
    """[ranks, steps, 1]: tokens where all ranks count them, else samples, else 1."""
    weights: Stack = np.ones((len(ranks), len(steps), 1))
    if "run" in world:
        run = world.aligned("run")
        for statistic in ("samples", "tokens"):
            counts = run.stack(statistic, steps, ranks, np.array([0]))
            known = np.isnan(counts) | (counts > 0)
            weights = np.where(known.all(axis=0) & ~np.isnan(counts), counts, weights)
    return weights


def distinct(world: World, steps: Steps, ranks: Sequence[int]) -> NDArray[np.bool_]:
    """[ranks, steps, 1]: False where a lower rank was given the same batch, by the fingerprints of that
    step or the last one before it that has some."""
    alone = np.ones((len(ranks), len(steps), 1), bool)
    if "batch" not in world or not len(steps):
        return alone
    batch = world.aligned("batch")
    known = batch.steps_after(-1)[0]
    if not len(known):
        return alone
    at = np.maximum(np.searchsorted(known, steps, "right") - 1, 0)
    looked, back = np.unique(known[at], return_inverse=True)
    prints = batch.stack("fingerprint", looked, ranks)
    for position in range(1, len(ranks)):
        own, lower = prints[position], prints[:position]
        seen = ~np.isnan(own).all(axis=1)
        same = ((lower == own) | (np.isnan(lower) & np.isnan(own))).all(axis=2).any(axis=0)
        alone[position, :, 0] = ~(same & seen)[back]
    return alone


def ratio_of_shards(group: Shards, change: Stack, ratio: Stack, after: Stack) -> Stack:
    """Norm of the change of a step over the norm before it, of the whole; all are [parts, steps, columns].

    The norm of a part before the step is that of its change over its ratio. Where it did not change, that
    is its norm after the step.
    """
    before = np.where(ratio > 0, change / ratio, np.where(change == 0, after, np.nan))
    return _where_whole(hypot(change, change) / hypot(before, before), group, before)


def cosine_of_shards(group: Shards, cosine: Stack, momentum: Stack, gradient: Stack) -> Stack:
    """Of the whole gradient with the whole momentum, from those of the parts and their norms."""
    product = np.where(momentum * gradient == 0, 0.0, cosine * momentum * gradient)
    sizes = hypot(momentum, momentum) * hypot(gradient, gradient)
    return _where_whole(product.sum(axis=0) / sizes, group, product)


def _where_whole(merged: Stack, group: Shards, parts: Stack) -> Stack:
    return np.where(group.whole & ~np.isnan(parts).any(axis=0), merged, np.nan)


def is_cut(rows: Aligned) -> bool:
    """Whether any site is sharded."""
    return any(site.placement == "sharded" for name in rows.names for site in rows.sites_of(name).values())


def gradient_norms(world: World, steps: Steps, own: Stack, own_clipped: Stack) -> tuple[Stack, Stack]:
    """[steps] of `run.grad_norm` and `run.clipped_grad_norm` where gradients are sharded.

    From the merged gradients at steps that all have recorded. Elsewhere from what ranks wrote themselves,
    [ranks, steps], where they agree: then it is the norm that clipping was told.
    """
    rows, data = world.aligned("grad"), world["grad"]
    used = np.array([site.optimized for site in data.sites], bool)
    norms = np.full((len(steps), int(used.sum())), np.nan)
    held = np.isin(steps, data.steps)
    at = np.searchsorted(data.steps, steps[held])
    norms[held] = data.values["norm"][at][:, used]
    measured = np.zeros(norms.shape, bool)
    measured[held] = ~np.isnan(data.values["nonfinite"][at][:, used])
    for rank in rows.ranks:
        held &= np.isin(steps, rows.steps_of(rank))
    whole = np.sqrt(np.where(measured, norms * norms, 0.0).sum(axis=1))
    least, most = np.fmin.reduce(own, axis=0), np.fmax.reduce(own, axis=0)
    told = np.where((least == most) & (~np.isnan(own)).all(axis=0), most, np.nan)
    found = np.where(held & measured.any(axis=1), whole, told)
    coefficient = np.fmin.reduce(np.where(own > 0, own_clipped / own, np.nan), axis=0)
    return found, np.where(found == 0, 0.0, found * coefficient)
