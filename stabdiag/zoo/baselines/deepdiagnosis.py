from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, baseline, by_site, elements, episodes, recorded

DEAD, VANISHED, TOO_LARGE, TOO_SMALL, PATIENCE = 0.7, 1e-7, 0.1, 1e-5, 5


@baseline("deepdiagnosis", title="DeepDiagnosis' symptoms")
def alarms(run: Run) -> Iterator[Alarm]:
    """Its symptoms as far as they can fire at all: invalid values, dead nodes, vanishing changes, a loss
    that does not decrease, a learning rate out of range, and inputs beyond one."""
    for series in ("output.nonfinite", "weight.nonfinite", "run.nonfinite"):
        table = recorded(run, series)
        yield from by_site(table, table.values > 0, "numerical error", ("nonfinite-origin",))
    zeros = recorded(run, "output.zeros")
    yield from by_site(zeros, zeros.values >= DEAD, "dead node", ("dead-units",))
    updates = recorded(run, "update.norm")
    small = updates.values / np.sqrt(elements(updates.sites)) < VANISHED
    means = ("vanishing-gradient", "frozen-parameters", "update-ratio-low", "lr-starvation")
    yield from by_site(updates, small, "vanishing change", means)
    ratios = recorded(run, "update.ratio")
    yield from by_site(
        ratios, ratios.values > TOO_LARGE, "learning rate", ("update-ratio-high", "lr-divergence")
    )
    yield from by_site(
        ratios, ratios.values < TOO_SMALL, "learning rate", ("update-ratio-low", "lr-starvation")
    )
    batch = recorded(run, "batch.absmax")
    yield from by_site(batch, batch.values > 1, "inputs", ("unnormalized-input",))
    loss = recorded(run, "run.loss")
    if len(loss.values) >= PATIENCE:
        windows = np.lib.stride_tricks.sliding_window_view(loss.values[:, 0], PATIENCE)
        # The mean of the last five equals their largest: the loss is exactly constant.
        for step in episodes(loss.steps[PATIENCE - 1 :], windows.mean(axis=1) == windows.max(axis=1)):
            yield Alarm(step, "loss not decreasing", ("loss-plateau",))
