"""What the inputs of the model looked like."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.history import history
from stabdiag.core.run import Run


@dataclass(frozen=True)
class Outlier:
    """A batch whose values reach `multiple` times what is usual of the same input."""

    input: str
    step: int
    reach: float
    multiple: float


def outlier(run: Run, step: int) -> Outlier | None:
    """The most unusual floating input of the batch of `step` or the one before it, None where none
    was recorded or nothing is known of what is usual."""
    found = []
    for site in run.sites("batch"):
        reach = history(run, "batch.absmax", site.name)
        multiple, peak = reach.jump(step), reach.peak(step - 1, step)
        if multiple is not None and peak is not None:
            found.append(Outlier(site.name, peak[0], peak[1], multiple))
    return max(found, key=lambda batch: batch.multiple, default=None)


def misfit(run: Run, step: int) -> tuple[float, str] | None:
    """How many times what is usual the largest error of a batch was, and of what, in words. A squared loss
    tells of it by its root, a robust one, which is absolute where it is large, by itself. None for others."""
    function = run.fact("loss", "function")
    if function not in ("mean-squared-error", "smooth-absolute-error", "huber"):
        return None
    worst, loss = history(run, "targets.max"), history(run, "run.loss")
    named = ((worst, "the worst sample"), (loss, "the batch"))
    known = ((told, series.jump(step)) for series, told in named if series.at(step) is not None)
    for told, multiple in known:
        if multiple is not None:
            return (math.sqrt(multiple) if function == "mean-squared-error" else multiple), told
    return None


def nonfinite_input(run: Run, last: int) -> tuple[str, int] | None:
    """The name of an input and the step of the first batch up to `last` with a non-finite value."""
    firsts = []
    for site in run.sites("batch"):
        count = history(run, "batch.nonfinite", site.name).within(0, last)
        bad = np.flatnonzero(count.values > 0)
        if len(bad):
            firsts.append((int(count.steps[bad[0]]), site.name))
    return min(firsts)[::-1] if firsts else None


def usual_scale(run: Run) -> tuple[str, float, float] | None:
    """The input with the largest usual rms: its name, that rms, and the median of its mean."""
    found = []
    for site in run.sites("batch"):
        rms = history(run, "batch.rms", site.name).finite()
        mean = history(run, "batch.mean", site.name).finite()
        if len(rms):
            middle = float(np.median(mean.values)) if len(mean) else 0.0
            found.append((site.name, float(np.median(rms.values)), middle))
    return max(found, key=lambda entry: entry[1], default=None)


def other_uses(run: Run, step: int) -> list[int]:
    """The other steps at which the batch of `step` was trained on, by its fingerprint."""
    for site in run.sites("batch"):
        prints = history(run, "batch.fingerprint", site.name)
        here = prints.within(step, step).values
        if len(here) and np.isfinite(here[0]):
            same = prints.steps[prints.values == here[0]]
            return [int(other) for other in same if other != step]
    return []


@dataclass(frozen=True)
class LoneJump:
    """How loss and gradient norm jumped in one step: `rise` and `pull` over what was usual, the loss at
    the `peak`, that of a `guess` (ln of the number of classes; None where unknown), and whether the
    loss of the next step, on other data, had `returned` at least half the way."""

    rise: float
    pull: float
    peak: float
    guess: float | None
    returned: bool


def lone_jump(run: Run, step: int) -> LoneJump | None:
    loss, norm = history(run, "run.loss"), history(run, "run.grad_norm")
    rise, pull, peak = loss.jump(step), norm.jump(step), loss.peak(step - 1, step)
    usual, after = loss.usual(step - 1), loss.at(step + 1)
    if rise is None or pull is None or peak is None or usual is None or after is None or rise <= 1:
        return None
    classes = run.fact("loss", "classes")
    guess = math.log(classes) if isinstance(classes, int) and classes > 1 else None
    return LoneJump(rise, pull, peak[1], guess, after - usual < 0.5 * (peak[1] - usual))
