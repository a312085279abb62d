"""Whether the loss bears out that something at a certain step did harm.

A level is no harm by itself: the same statistic may be large in the best run of all. What tells is what
the loss did afterwards.
"""

from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.core.run import Run

LITTLE = 0.35
"""Share of the first loss below which what was learned counts as little: next to nothing but the
frequencies of the classes. A language model that has fallen back to these has learned 0.12 (128 tokens) to
0.3 (50,000)."""


def suffers(run: Run, since: int) -> bool:
    """Whether the loss shows harm, rose after step `since`, or got stuck with little learned; False where
    none was recorded."""
    curve = _curve(run)
    if curve is None or curve.harmed:
        return curve is not None
    if curve.several or len(curve.values) < 20:
        return False
    return _rose(curve, since) or stuck(run, since)


def improves(run: Run, since: int) -> bool:
    """Whether the loss reached a clearly lower level after step `since` than it had then. False where too
    little came after, or no loss was recorded."""
    curve = _curve(run)
    if curve is None or curve.several:
        return False
    at = int(np.searchsorted(curve.steps, since))
    before, after = curve.level[: at + 1], curve.level[at + curve.window :]
    if not np.isfinite(before).any() or not np.isfinite(after).any():
        return False
    usual = float(np.nanmin(before[-curve.window :]))
    return bool(usual - np.nanmin(after) > max(curve.margin, 0.05 * curve.progress))


def stalled(run: Run) -> bool:
    """Whether the second half of the run brought nothing beyond noise and 2 % of what the first had."""
    curve = _curve(run)
    if curve is None or curve.several or len(curve.values) < 100:
        return False
    half = len(curve.level) // 2
    full = np.where(np.arange(len(curve.level)) >= curve.window - 1, curve.level, np.nan)
    first, second = np.nanmin(full[:half]), np.nanmin(full[half:])
    return bool(first - second < max(curve.margin / 2, 0.02 * curve.progress))


def stuck(run: Run, since: int) -> bool:
    """Whether the second half of the run brought nothing, with little learned in the first, within which
    `since` lies. What a classifier learns counts from the loss of guessing, where it began above that."""
    curve = _curve(run)
    if curve is None or not stalled(run) or since > curve.steps[len(curve.steps) // 2]:
        return False
    classes = run.fact("loss", "classes")
    start = min(curve.start, math.log(classes)) if isinstance(classes, int) and classes > 1 else curve.start
    return bool(start - curve.best < LITTLE * abs(start))


def _rose(curve: LossCurve, since: int) -> bool:
    """Whether the last level lies above the one at `since` by more than noise, and a quarter of what had been
    learned by then."""
    at = min(int(np.searchsorted(curve.steps, since)), len(curve.level) - 1)
    before = curve.level[max(at - curve.window, 0) : at + 1]
    if not np.isfinite(before).any():
        return False
    usual = float(np.nanmin(before))
    return curve.end - usual > max(curve.margin, 0.25 * (curve.start - usual))


def _curve(run: Run) -> LossCurve | None:
    if "run.loss" not in run:
        return None
    try:
        return loss_curve(run)
    except NotEvaluable:
        return None
