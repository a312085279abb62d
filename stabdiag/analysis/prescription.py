"""The numbers that fixes share: what to set, derived from what this run did."""

from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near, schedule
from stabdiag.core.run import Run

TARGET_RATIO = 0.01
"""Update ratio that a lowered learning rate aims at: inside the healthy band, below its edge."""


def rounded(value: float) -> float:
    """The nearest of 1, 2, 3 and 5 times a power of ten: numbers that people set by hand."""
    exponent = math.floor(math.log10(value))
    candidates = [digit * 10.0**power for power in (exponent, exponent + 1) for digit in (1, 2, 3, 5)]
    return float(f"{min(candidates, key=lambda c: abs(math.log(c / value))):.0e}")


def rate_at_fault(run: Run, onset: int) -> float | None:
    """The largest learning rate of the 50 steps up to `onset`, None where it was not recorded."""
    peak = schedule(run).rate.peak(max(onset - 50, 0), onset)
    return peak[1] if peak and peak[1] > 0 else None


def lowered_rate(run: Run, onset: int) -> tuple[float, str]:
    """The factor for the learning rate, at most 0.5 and at least 0.01, and the reason in words."""
    near = ratio_near(run, onset)
    if near is None or near[1] <= HEALTHY_RATIO:
        return 0.3, "a third is the usual first cut"
    return (
        min(max(TARGET_RATIO / near[1], 0.01), 0.5),
        f"the median update ratio was {figure(near[1])}, where a healthy run stays below {HEALTHY_RATIO:g}",
    )


def healthy_step(run: Run, onset: int) -> int:
    """A step to go back to: before the onset by more than what may have led to it."""
    recorded = schedule(run).rate.steps
    reach = max(10, onset // 20)
    earlier = recorded[recorded <= max(onset - reach, 0)]
    return int(earlier[-1]) if len(earlier) else 0


def usual_gradient_norm(run: Run, onset: int) -> float | None:
    """The median gradient norm before the onset; where it began at once, that of the calmest tenth of all
    steps."""
    norms = history(run, "run.grad_norm").finite()
    calm, middle = norms.before(onset), 0.5
    if len(calm) < 4:
        calm, middle = norms.values, 0.05
    usual = float(np.quantile(calm, middle)) if len(calm) else 0.0
    return usual if usual > 0 else None


def optimizer_name(run: Run) -> str:
    return str(run.fact("optimizer", "name") or "AdamW")


def listed(names: tuple[str, ...], most: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
