from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, Bools, Recorded, baseline, by_site, elements, episodes, recorded

VANISHED, TOO_LARGE, TOO_SMALL = 1e-7, 10.0, 1e-8
LAG, UNCHANGED, DEAD = 10, 3, 0.5
VARIANCE_RATIO, FIRST, MEAN = 10.0, 10, 0.2


@baseline("sagemaker", title="SageMaker Debugger's rules")
def alarms(run: Run) -> Iterator[Alarm]:
    """Its built-in rules with their documented defaults, as far as they need neither images nor trees: the
    originals are closed. A mean magnitude is taken as root mean square, which is never smaller."""
    gradients = recorded(run, "grad.norm")
    rms = gradients.values / np.sqrt(elements(gradients.sites))
    yield from by_site(gradients, rms < VANISHED, "VanishingGradient", ("vanishing-gradient",))
    for series in ("grad.nonfinite", "output.nonfinite", "weight.nonfinite"):
        table = recorded(run, series)
        yield from by_site(
            table, table.values > 0, "ExplodingTensor", ("nonfinite-origin", "exploding-gradient")
        )
    updates = recorded(run, "update.ratio")
    yield from by_site(
        updates, updates.values > TOO_LARGE, "WeightUpdateRatio", ("update-ratio-high", "lr-divergence")
    )
    yield from by_site(
        updates, updates.values < TOO_SMALL, "WeightUpdateRatio", ("update-ratio-low", "lr-starvation")
    )
    zeros = recorded(run, "output.zeros")
    yield from by_site(zeros, zeros.values >= 1, "AllZero", ("dead-units",))
    dead = recorded(run, "grad.dead")
    yield from by_site(dead, dead.values > DEAD, "DeadRelu", ("dead-units",))
    moved = recorded(run, "update.norm")
    yield from by_site(
        moved, _kept(moved), "UnchangedTensor", ("frozen-parameters", "unreachable-parameters")
    )
    batch = recorded(run, "batch.mean")
    yield from by_site(batch, np.abs(batch.values) > MEAN, "NotNormalizedImages", ("unnormalized-input",))
    yield from _of_the_loss(recorded(run, "run.loss"))
    yield from _of_the_start(recorded(run, "weight.norm"))


def _kept(moved: Recorded) -> Bools:
    """Where the last three recorded updates were zero."""
    still = moved.values == 0
    kept = np.zeros(still.shape, dtype=bool)
    for index in range(UNCHANGED - 1, len(still)):
        kept[index] = still[index - UNCHANGED + 1 : index + 1].all(axis=0)
    return kept


def _of_the_loss(loss: Recorded) -> Iterator[Alarm]:
    if loss.values.size:
        values = loss.values[::LAG, 0]
        not_decreased = np.append(False, np.diff(values) >= 0)
        for step in episodes(loss.steps[::LAG], not_decreased):
            yield Alarm(
                step, "LossNotDecreasing", ("loss-plateau", "context-blind-plateau", "loss-divergence")
            )


def _of_the_start(weights: Recorded) -> Iterator[Alarm]:
    matrices = [index for index, site in enumerate(weights.sites) if len(site.shape) >= 2]
    early = weights.steps < FIRST
    if matrices and early.any():
        variances = weights.values[early][:, matrices] ** 2 / elements([weights.sites[i] for i in matrices])
        positive = variances > 0
        largest = np.where(positive, variances, 0.0).max(axis=1)
        ratio = largest / np.where(positive, variances, np.inf).min(axis=1)
        for step in episodes(weights.steps[early], ratio > VARIANCE_RATIO):
            yield Alarm(step, "PoorWeightInitialization", ("bad-initialization",))
