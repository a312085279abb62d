"""Where a pair of series lies apart by more than both stray by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.comparison.noise import noise
from stabdiag.analysis.comparison.pairs import Pair, Recorded
from stabdiag.analysis.first_mover import LINEAR
from stabdiag.analysis.robust import Flags, median
from stabdiag.core.run import Floats, Run

SIGMAS = 6.0
"""Standard deviations of the noise of both within which they are together."""

FLOOR, SHARE_FLOOR = 0.03, 0.05
"""The least width of the noise: a share of the level, and of what is itself a share, points."""

SAMPLED_FLOOR = 0.15
"""The same of what is taken from a sample of the elements, where the two runs did not draw the same one;
and where there are too few records to know the noise."""

ROUNDINGS = 6.0
"""Roundings of the coarser precision that the noise is wide at least."""

FAR = 2.0
"""Widths beyond which a value does not only just lie apart."""

SAMPLED = ("output", "output_grad", "attention", "router", "logits")
ACCUMULATES = ("weight",)
"""Kinds whose noise adds up from step to step."""

FLOAT32 = 2.0**-23
EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float8_e4m3fn": 2.0**-3, "float8_e5m2": 2.0**-2}


@dataclass(frozen=True)
class Tolerance:
    """What of a difference means nothing: `epsilon` is the distance of neighbours about 1 in the coarsest
    floating type of both runs; `resampled`: they drew other samples of their tensors."""

    epsilon: float
    resampled: bool

    @property
    def share(self) -> float:
        """Of the level."""
        return max(FLOOR, ROUNDINGS * self.epsilon)


@dataclass(frozen=True)
class Apart:
    """How far the two lie apart, [steps, sites], in widths of their noise: `excess` is NaN where not both
    were measured, and infinite where only one was finite. `higher` is where that of b is."""

    pair: Pair
    excess: Floats
    higher: Flags

    @property
    def beyond(self) -> Flags:
        """Where they are apart: far beyond the noise, or beyond it at the record before or after too, lest
        one of thousands strays by chance."""
        out: Flags = np.nan_to_num(self.excess, nan=-1.0) >= 1
        beside = _beside(self.excess)
        return out & (beside | _beside(self.excess[::-1])[::-1] | (self.excess >= FAR))


def _beside(excess: Floats) -> Flags:
    """Where the measured row before lies beyond the noise too."""
    before = np.zeros(excess.shape, bool)
    last = np.zeros(excess.shape[1], bool)
    for row, values in enumerate(excess):
        before[row] = last
        last = np.where(np.isnan(values), last, values >= 1)
    return before


def tolerance_of(a: Run, b: Run) -> Tolerance:
    """By the types in which both compute, and by the shapes of what flows through them."""
    types = {site.dtype for run in (a, b) for kind in ("output", "weight") for site in run.sites(kind)}
    coarsest = max(EPSILON.get(name, FLOAT32) for name in (*types, ""))
    shapes = {site.name: site.shape for site in b.sites("output")}
    reshaped = any(shapes.get(site.name, site.shape) != site.shape for site in a.sites("output"))
    return Tolerance(coarsest, reshaped or a.info.world_size != b.info.world_size)


def apart(pair: Pair, tolerance: Tolerance) -> Apart:
    """Columns that are positive throughout are judged by their logarithm, others as they are."""
    positive = np.full(len(pair.sites), pair.statistic not in LINEAR)
    for values in (pair.a, pair.b):
        positive &= ~(values <= 0).any(axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a, noise_a = _strayed(pair, pair.a, pair.own_a, positive)
        b, noise_b = _strayed(pair, pair.b, pair.own_b, positive)
        width = np.maximum(SIGMAS * np.hypot(noise_a, noise_b), _floor(pair, tolerance, positive))
        distance = np.abs(b - a)
        distance[np.isinf(a) & np.isinf(b)] = 0
        excess = np.divide(distance, width, out=np.zeros_like(distance), where=distance != 0)
    return Apart(pair, excess, b > a)


def _scaled(values: Floats, positive: Flags) -> Floats:
    """A logarithm is not finite where there is none."""
    if positive.all():
        return np.log(values)
    return np.where(positive, np.log(values), values) if positive.any() else values


def _strayed(pair: Pair, values: Floats, own: Recorded, positive: Flags) -> tuple[Floats, Floats]:
    """The values of one run at the steps of the pair, as they are judged, and their noise there."""
    scaled = _scaled(own.values, positive)
    sigma = noise(scaled)
    if pair.kind in ACCUMULATES:
        # The second differences of a random walk have a third of the variance of those of noise.
        sigma *= np.sqrt(3 * np.arange(1, len(sigma) + 1, dtype=np.float32))[:, None]
    if values is own.values:
        return scaled, sigma
    at = np.clip(np.searchsorted(own.steps, pair.steps), 0, len(own.steps) - 1)
    return _scaled(values, positive), sigma[at]


def _floor(pair: Pair, tolerance: Tolerance, positive: Flags) -> Floats:
    share = tolerance.share
    few = min(len(pair.own_a.steps), len(pair.own_b.steps)) < 3
    if few or (tolerance.resampled and pair.kind in SAMPLED):
        share = max(share, SAMPLED_FLOOR)
    if pair.statistic in LINEAR:
        return np.full(len(positive), max(share, SHARE_FLOOR), np.float32)
    widths = np.full(len(positive), np.log1p(share), np.float32)
    if not positive.all():
        both = np.abs(np.concatenate([pair.a[:, ~positive], pair.b[:, ~positive]]))
        level = median(np.where(np.isfinite(both), both, np.nan), axis=0)
        widths[~positive] = share * np.nan_to_num(level)
    return widths
