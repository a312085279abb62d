from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, baseline, by_site, episodes, recorded

FIRST_TO_LAST_LOW, FIRST_NORM, FIRST_TO_LAST_HIGH = 1e-3, 1e-4, 70.0
DEAD, LARGE_OUTPUT = 0.7, 10.0


@baseline("autotrainer", title="AutoTrainer's problems")
def alarms(run: Run) -> Iterator[Alarm]:
    """Exploding and vanishing gradients by the ratio of the first matrix to the last, dying ReLU, and
    abnormal data, with its parameters. The accuracy by which it decides whether to look at all is not known
    here."""
    loss = recorded(run, "run.loss")
    if loss.values.size:
        for step in episodes(loss.steps, ~np.isfinite(loss.values[:, 0])):
            yield Alarm(step, "explode", ("nonfinite-origin", "exploding-gradient", "lr-divergence"))
    gradients = recorded(run, "grad.norm")
    matrices = [i for i, site in enumerate(gradients.sites) if len(site.shape) >= 2]
    if len(matrices) >= 2:
        order = sorted(matrices, key=lambda i: gradients.sites[i].order)
        first, last = gradients.values[:, order[0]], gradients.values[:, order[-1]]
        ratio = first / last
        for step in episodes(gradients.steps, ratio > FIRST_TO_LAST_HIGH):
            yield Alarm(step, "explode", ("exploding-gradient",), gradients.sites[order[0]].name)
        for step in episodes(gradients.steps, (ratio < FIRST_TO_LAST_LOW) & (first < FIRST_NORM)):
            yield Alarm(step, "vanish", ("vanishing-gradient",), gradients.sites[order[0]].name)
    dead = recorded(run, "grad.dead")
    yield from by_site(dead, dead.values >= DEAD, "dying relu", ("dead-units",))
    outputs = recorded(run, "output.rms")
    yield from by_site(outputs, outputs.values >= LARGE_OUTPUT, "abnormal data", ("unnormalized-input",))
