from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, Doubles, baseline, episodes, recorded

WINDOW, LEAST, SIGMAS = 128, 64, 6.0


def spikes(values: Doubles) -> np.ndarray:
    """Values above the mean and six deviations of the last 128. As in the original, a value that is not a
    number is none, and blinds it until it has left the window."""
    raised = np.zeros(len(values), dtype=bool)
    for index in range(LEAST, len(values)):
        recent = values[max(0, index - WINDOW) : index]
        raised[index] = values[index] - recent.mean() > SIGMAS * recent.std()
    return raised


@baseline("olmo", title="OLMo-core's stability monitor")
def alarms(run: Run) -> Iterator[Alarm]:
    """Loss or gradient norm above the mean and six deviations of the last 128 steps, after 64."""
    means = ("loss-spike", "bad-batch", "loss-divergence", "exploding-gradient")
    for series in ("run.loss", "run.grad_norm"):
        table = recorded(run, series)
        if table.values.size:
            values = table.values[:, 0]
            known = np.isfinite(values) if series == "run.grad_norm" else np.ones(len(values), dtype=bool)
            for step in episodes(table.steps[known], spikes(values[known])):
                yield Alarm(step, series, means)
