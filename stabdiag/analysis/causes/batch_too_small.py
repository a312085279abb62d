from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "batch-too-small",
    title="The batch is too small for the learning rate",
    fixes=("larger-batch", "lower-learning-rate"),
)
def batch_too_small(run: Run, finding: Finding) -> Weight | None:
    """The gradient of a batch is mostly noise, and the learning rate makes a random walk of it.

    The mean cosine c of gradients in a row is the share of signal: noise over signal is (1 - c) / c. It
    rises by itself as the loss falls, and matters where the batch was cut and the rate was not. Its
    look-alike is overshooting, where the cosine is below zero. Noise alone is told of nothing but
    noise-dominated: lost runs have it, too.

    Reference: McCandlish et al., An empirical model of large-batch training,
    https://arxiv.org/abs/1812.06162
    """
    cosine = history(run, "run.grad_cosine").finite()
    around = cosine.within(finding.onset_step - 5, max(finding.last_step, finding.onset_step + 50)).values
    samples = history(run, "run.samples").finite()
    before = samples.usual(finding.onset_step)
    now = samples.within(finding.onset_step, finding.onset_step + 50).values
    case = Case()
    if before and len(now) and np.median(now) > 0:
        case.speaks_for(
            0.6 * ramp(before / float(np.median(now)), 1.5, 4),
            f"the batch fell from {figure(before)} to {figure(float(np.median(now)))} samples",
        )
    if len(around) >= 10:
        signal = float(np.mean(around))
        noise = 1.0 / max(signal, 1e-3) - 1.0
        times = figure(noise) if noise < 100 else "more than 100"
        case.speaks_for(
            0.5 * ramp(noise, 10, 100) if signal > -0.05 and finding.signature == "noise-dominated" else 0.0,
            f"the noise of a batch is {times} times the gradient itself",
        )
        case.speaks_against(
            0.8 * ramp(max(signal, 1e-9), 0.2, 0.6), f"gradients in a row agree (cosine {figure(signal)})"
        )
        case.speaks_against(0.8 * ramp(max(-signal, 1e-9), 0.05, 0.3), "gradients in a row oppose each other")
    return case.weight()
