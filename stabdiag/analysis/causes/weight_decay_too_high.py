from __future__ import annotations

import numpy as np

from stabdiag.analysis.anatomy import matrices
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.step_size import weight_decay
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "weight-decay-too-high",
    title="Weight decay outweighs the gradient",
    fixes=("lower-weight-decay",),
)
def weight_decay_too_high(run: Run, finding: Finding) -> Weight | None:
    """Decay shrinks the weights faster than the gradient rebuilds them, and the signal fades with them.

    Decoupled decay alone takes the share exp(-Σ lr·λ) of a weight: a sum above 1 together with norms
    that fall steadily is the sign. The usual decay of AdamW is 0.01 to 0.1; with SGD it is 1e-4.

    Reference: Loshchilov and Hutter, Decoupled Weight Decay Regularization,
    https://arxiv.org/abs/1711.05101
    """
    decay = weight_decay(run)
    if not decay or "weight.norm" not in run:
        return None
    case = Case()
    rates = history(run, "run.lr").within(0, finding.last_step).finite().values
    table = run.window(0, finding.last_step).table("weight.norm")
    norms = table.values[:, matrices(table.sites)].astype(np.float64)
    norms = norms[np.isfinite(norms).all(axis=1)]
    shrunk = (
        float(np.median(norms[-1] / np.maximum(norms[0], 1e-12))) if norms.size and len(norms) > 1 else 1.0
    )
    pull = decay * float(np.sum(rates))
    case.speaks_for(
        0.6 * ramp(shrunk, 0.8, 0.2),
        f"the norms of the weight matrices fell to {100 * shrunk:.0f} % in the median",
    )
    if shrunk < 0.9:
        case.speaks_for(
            0.5 * ramp(pull, 0.5, 5),
            f"a weight decay of {figure(decay)} adds up to {figure(pull)} (1 is a lot)",
        )
    return case.weight()
