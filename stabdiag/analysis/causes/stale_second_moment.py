from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.adam import ages_at
from stabdiag.analysis.adaptive import adaptive, kept
from stabdiag.analysis.batches import outlier
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import History, history
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "stale-second-moment",
    title="The second moment lags behind the gradients",
    fixes=(
        "lower-beta2",
        "clip-updates",
        "clip-gradients",
        "lower-learning-rate",
        "adaptive-clipping",
        "reset-optimizer-state",
    ),
    moves_first=("optimizer.rms", "optimizer.step", "update.*"),
    lead=(0, 16),
)
def stale_second_moment(run: Run, finding: Finding) -> Weight | None:
    """The running mean of squared gradients remembers a calmer past, so the division by it is too weak.

    After a calm phase the gradients grow, and for up to 1/(1 - β2) steps every update is too long by
    the ratio of the two. β2 is `alpha` in RMSprop. Measured as rms(update)/lr, healthy Adam stays
    within 0.17 to 0.39 after the first 50 steps; above 0.5 the moment is stale. It moves 1 to 8 steps
    before the loss, and the gradient norm after it; with a corrupt batch the loss and the gradient move
    first.

    Reference: Wortsman et al., Stable and low-loss training of large-scale vision-language models,
    https://arxiv.org/abs/2304.13013
    """
    beta = kept(run, finding.onset_step)
    onset = finding.onset_step
    if beta is None or onset < 20:
        return None
    case, optimizer = Case(), adaptive(run)
    age = ages_at(run, np.array([onset]))
    whole, farthest = optimizer.averages(age), float(optimizer.farthest(age)[0])
    stretch = _stretch(run, max(onset - 10, 20), onset + 1).peak(0, onset + 1)
    if whole is not None and stretch is not None:
        case.speaks_for(
            0.75 * ramp(stretch[1] / whole, 0.45, 1.0),
            f"at step {stretch[0]} the updates were {figure(stretch[1])} of the learning rate in rms, "
            f"where {optimizer.name} stays below {figure(0.4 * whole)}",
        )
    behind = [
        peak
        for site in run.sites("optimizer")
        if site.name in finding.sites
        and (peak := history(run, "optimizer.rms", site.name).peak(onset - 8, onset + 8)) is not None
    ]
    if behind:
        step, rms = max(behind, key=lambda peak: peak[1])
        case.speaks_for(
            0.75 * ramp(rms, 0.3 * farthest, 0.6 * farthest),
            f"gradients were {figure(rms)} times the root of their second moment at step {step}, where "
            f"{figure(farthest)} is the most there can be",
        )
    long = [
        peak
        for site in run.sites("optimizer")
        if site.name in finding.sites
        and finding.signature == "adam-stale-second-moment"
        and (peak := history(run, "optimizer.step", site.name).peak(onset - 1, onset + 8)) is not None
    ]
    if whole is not None and long:
        step, update = max(long, key=lambda peak: peak[1])
        case.speaks_for(
            0.6 * ramp(update / whole, 0.45, 0.9),
            f"an update was {figure(update)} learning rates in rms at step {step}",
        )
    norms = history(run, "run.grad_norm")
    usual, peak = norms.usual(onset - 8), norms.peak(onset - 8, onset - 1)
    if usual and peak:
        case.speaks_for(
            0.35 * ramp(peak[1] / usual, 3, 30),
            f"the gradient norm had risen {figure(peak[1] / usual)}-fold by step {peak[0]}, and a β2 of "
            f"{beta:.3g} follows over {1 / (1 - beta):.0f} steps",
        )
    batch = outlier(run, onset)
    if batch is not None:
        case.speaks_against(
            0.7 * ramp(batch.multiple, 3, 10), f"the batch of step {batch.step} was unusual: it came first"
        )
    case.speaks_against(0.5 * ramp(1 - beta, 0.02, 0.05), f"a β2 of {beta:.3g} forgets fast")
    return case.weight()


def _stretch(run: Run, first: int, last: int) -> History:
    """Median over the weight matrices of rms(update)/lr."""
    near = run.window(first, last)
    if "update.norm" not in near:
        return history(near, "update.norm")
    table, rate = near.table("update.norm"), schedule(run).rate
    columns = [i for i, site in enumerate(table.sites) if len(site.shape) >= 2]
    rates = np.array([rate.at(int(step)) or math.nan for step in table.steps])
    if not columns or not len(table.steps):
        return history(near, "update.missing")
    roots = np.sqrt([table.sites[i].size for i in columns])
    middle = median(table.values[:, columns] / roots, axis=1) / rates
    return History(table.steps, middle.astype(np.float64))
