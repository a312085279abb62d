from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, Bools, Doubles, baseline, by_site, recorded

MEMORY, TURBULENCE, LARGE = 0.99, 0.5, 1e10


def turbulent(values: Doubles) -> Bools:
    """Values [steps, sites] above 1.5 times the exponential mean of their magnitude."""
    raised = np.zeros(values.shape, dtype=bool)
    mean = np.full(values.shape[1], np.nan)
    for index, row in enumerate(np.abs(values)):
        raised[index] = row > (1 + TURBULENCE) * mean
        mean = np.where(
            np.isnan(mean), row, np.where(np.isnan(row), mean, MEMORY * mean + (1 - MEMORY) * row)
        )
    return raised


@baseline("msprobe", title="msprobe's turbulence and NaN rules")
def alarms(run: Run) -> Iterator[Alarm]:
    """The norm of a gradient is 1.5 times its exponential mean (the documented example), or anything is not
    finite or above 1e10."""
    norms = recorded(run, "grad.norm")
    means = ("exploding-gradient", "bad-batch", "embedding-gradient-spike", "loss-spike")
    yield from by_site(norms, turbulent(norms.values), "turbulence", means)
    for series in ("grad.nonfinite", "output.nonfinite", "weight.nonfinite"):
        table = recorded(run, series)
        yield from by_site(table, table.values > 0, series, ("nonfinite-origin",))
    for series in ("output.absmax", "grad.norm"):
        table = recorded(run, series)
        yield from by_site(table, np.abs(table.values) > LARGE, f"large {series}", ("exploding-activation",))
