from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run


@cause("benign-transient", title="A transient from which the run recovered by itself", fixes=())
def benign_transient(run: Run, finding: Finding) -> Weight | None:
    """The disturbance passed without a trace: the loss is at or below its old level again.

    Large updates of the first steps, a hard batch or a rare token make such blips in every healthy
    run; nothing has to be changed. It is no transient where the loss stays above its old level, or
    where it returns every few steps.

    Reference: Lewkowycz et al., The large learning rate phase of deep learning: the catapult
    mechanism, https://arxiv.org/abs/2003.02218
    """
    loss = history(run, "run.loss").finite()
    before = loss.before(finding.onset_step)
    later = loss.within(finding.last_step + 1, finding.last_step + 50)
    after = later.values
    if len(before) < 4 or len(after) < 5 or finding.severity is Severity.critical:
        return None
    old, new = float(np.median(before[-16:])), float(np.median(after[-16:]))
    noise = float(np.median(np.abs(before - np.median(before)))) + 1e-12
    if new > old + noise:
        return None
    case = Case()
    took = int(later.steps[-1]) - finding.last_step
    case.speaks_for(
        0.25, f"the loss was back at {figure(new)} within {took} steps, and had been {figure(old)} before"
    )
    apart = finding.facts.get("outlying")
    if finding.severity and apart is not None:
        case.speaks_against(
            0.5 * ramp(apart, 12, 4), "the batch was bad as a whole, and no hard sample of it"
        )
    pull = history(run, "run.grad_norm").jump(finding.onset_step)
    if pull is not None:
        case.speaks_for(
            0.35 * ramp(pull, 5, 1.5), f"the gradient norm was ordinary ({figure(pull)} times the usual)"
        )
        case.speaks_against(0.4 * ramp(pull, 10, 100), f"the gradient norm jumped {figure(pull)}-fold")
    return case.weight()
