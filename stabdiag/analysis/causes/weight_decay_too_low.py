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
    "weight-decay-too-low",
    title="Too little weight decay holds the weights",
    fixes=("raise-weight-decay", "z-loss"),
)
def weight_decay_too_low(run: Run, finding: Finding) -> Weight | None:
    """Nothing pulls the weights back, and they grow for as long as they are trained.

    Steps along a weight that a normalization makes free to grow always lengthen it. Decoupled decay holds
    it where both are equal, within 1/(learning rate · decay) steps. Its look-alike is a learning rate that
    blows the weights up at once, in tens of steps.

    Reference: Kosson et al., Rotational equilibrium, https://arxiv.org/abs/2305.17212
    """
    if "weight.norm" not in run:
        return None
    table = run.window(0, finding.last_step).table("weight.norm")
    chosen = [i for i in matrices(table.sites) if table.sites[i].name in finding.sites] or matrices(
        table.sites
    )
    norms = table.values[:, chosen].astype(np.float64)
    norms = norms[np.isfinite(norms).all(axis=1)]
    if len(norms) < 10:
        return None
    begun = norms[len(norms) // 10]
    growth = float(np.max(norms[-1] / np.maximum(begun, 1e-12)))
    halfway = float(np.max(norms[len(norms) // 2] / np.maximum(begun, 1e-12)))
    rates = history(run, "run.lr").within(0, finding.last_step).finite().values
    decay = weight_decay(run)
    if decay is None:
        return None  # as of an optimizer that calls it by a name of its own
    pull = decay * float(np.sum(rates))
    case = Case()
    case.speaks_for(
        0.7 * ramp(growth, 1.5, 5) * ramp(growth / halfway, 1.02, 1.3),
        f"weights grew {figure(growth)}-fold and still grow, with a decay of {figure(decay)}",
    )
    case.speaks_against(0.8 * ramp(pull, 0.3, 3), f"that decay adds up to {figure(pull)}: it holds them")
    return case.weight()
