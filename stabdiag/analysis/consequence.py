"""Whether the loss bears out that something at a certain step did harm.

A level is no harm by itself: the same statistic may be large in the best run of all. What tells is what
the loss did afterwards.
"""

from __future__ import annotations

import numpy as np

from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.guessing import guessing
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.pretrained import pretrained
from stabdiag.analysis.robust import median
from stabdiag.core.run import Run

LITTLE = 0.35
"""Share of the first loss below which what was learned counts as little: next to nothing but the
frequencies of the classes. A language model that has fallen back to these has learned 0.12 (128 tokens) to
0.3 (50,000)."""


def suffers(run: Run, since: int) -> bool:
    """Whether the loss shows harm, rose after step `since`, or got stuck with little learned; False where
    none was recorded. A model that was trained before need not gain: it suffers where it loses."""
    curve = _curve(run)
    if curve is None:
        return False
    if curve.harmed:
        return not _holds(run, curve) or _rose(curve, since)
    if curve.several or len(curve.values) < 20:
        return False
    return _rose(curve, since) or stuck(run, since)


def while_finite(run: Run) -> Run:
    """The run up to its last finite loss. What keeps a model from learning makes no value that is not
    finite: that one came is no harm of its doing."""
    curve = _curve(run)
    if curve is None or curve.lost_from is None:
        return run
    return run.window(0, int(curve.steps[curve.lost_from - 1]) if curve.lost_from else -1)


def rises(run: Run, since: int) -> bool:
    """Whether the loss ends above its level at step `since`, by more than noise and a quarter of what was
    learned by then; False where none was recorded."""
    curve = _curve(run)
    return curve is not None and _rose(curve, since)


def improves(run: Run, since: int) -> bool:
    """Whether the loss reached a clearly lower level after step `since` than it had then, or went down all
    the way from there. False where too little came after, or no loss was recorded."""
    curve = _curve(run)
    if curve is None or curve.several:
        return False
    at = int(np.searchsorted(curve.steps, since))
    before, after = curve.level[: at + 1], curve.level[at + curve.window :]
    if not np.isfinite(before).any() or not np.isfinite(after).any():
        return False
    usual = float(np.nanmin(before[-curve.window :]))
    if usual - np.nanmin(after) > max(curve.margin, 0.05 * curve.progress):
        return True
    return _descends(curve, at)


def _descends(curve: LossCurve, at: int) -> bool:
    """Whether the last third after position `at` lies below the first, and below what was before, by more
    than 4 standard errors and 5 % of the progress. What many steps say together, a short window does not."""
    before = curve.values[max(at - curve.window, 0) : at + 1]
    first, _, last = np.array_split(curve.values[at + 1 :], 3)
    if min(np.isfinite(part).sum() for part in (first, last)) < curve.window:
        return False
    end = float(median(last))
    error = 1.25 * curve.noise * float(np.sqrt(2 / len(last)))
    gained = min(float(median(first)), float(median(before))) - end
    return gained > max(4 * error, 0.05 * curve.progress)


def stalled(run: Run) -> bool:
    """Whether the second half of the run brought nothing beyond noise and 2 % of what the first had."""
    curve = _curve(run)
    if curve is None or curve.several or len(curve.values) < 100:
        return False
    half = len(curve.level) // 2
    full = np.where(np.arange(len(curve.level)) >= curve.window - 1, curve.level, np.nan)
    first, second = np.nanmin(full[:half], initial=np.inf), np.nanmin(full[half:], initial=np.inf)
    return bool(first - second < max(curve.margin / 2, 0.02 * curve.progress))


def stuck(run: Run, since: int) -> bool:
    """Whether the second half of the run brought nothing, with little learned in the first, within which
    `since` lies. What a classifier learns counts from the loss of guessing, where it began above that. A
    model that was trained before has learned already."""
    curve = _curve(run)
    if (
        curve is None
        or not stalled(run)
        or pretrained(run) is not None
        or since > curve.steps[len(curve.steps) // 2]
    ):
        return False
    guess = guessing(run)
    start = curve.start if guess is None else min(curve.start, guess)
    return bool(start - curve.best < LITTLE * abs(start))


def _holds(run: Run, curve: LossCurve) -> bool:
    """Whether a model that was trained before has kept the loss that it began with."""
    risen = curve.end - curve.start > max(curve.margin, 0.1 * abs(curve.start))
    return curve.lost_from is None and not curve.made_progress and not risen and pretrained(run) is not None


def _rose(curve: LossCurve, since: int) -> bool:
    """Whether the last level lies above the one at `since` by more than noise, and a quarter of what had been
    learned by then."""
    at = min(int(np.searchsorted(curve.steps, since)), len(curve.level) - 1)
    before = curve.level[max(at - curve.window, 0) : at + 1]
    if not np.isfinite(before).any():
        return False
    usual = float(np.nanmin(before))
    # At the start a level is that of few values, and of one in the first step.
    known = min(max(at - curve.window, 0) + 1, curve.window)
    margin = curve.margin * float(np.sqrt(curve.window / known))
    return curve.end - usual > max(margin, 0.25 * (curve.start - usual))


def _curve(run: Run) -> LossCurve | None:
    if "run.loss" not in run:
        return None
    try:
        return loss_curve(run)
    except NotEvaluable:
        return None
