from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "parameters-not-optimized",
    title="No optimizer updates these parameters",
    fixes=("optimize-parameters",),
)
def parameters_not_optimized(run: Run, finding: Finding) -> Weight | None:
    """The parameters want to be trained (`requires_grad`), but no optimizer holds them.

    Usual reasons: the optimizer was built from a part of the model, before layers were added or
    replaced, or before the model was moved and rebuilt; modules kept in a plain Python list, which
    `model.parameters()` does not see. Its look-alike is a cut graph: there no gradient arrives.

    Reference: https://pytorch.org/docs/stable/optim.html#constructing-it
    """
    sites = {site.name: site for site in (*run.sites("weight"), *run.sites("grad"), *run.sites("update"))}
    named = [sites[name] for name in finding.sites if name in sites]
    trainable = [site for site in named if site.trainable]
    if not trainable:
        return None
    case = Case()
    outside = [site for site in trainable if not site.optimized]
    case.speaks_for(
        0.9 * len(outside) / len(trainable),
        f"{len(outside)} of {len(trainable)} trainable parameters are in no optimizer",
    )
    pulled = _with_gradient(run, {site.name for site in trainable})
    if pulled is not None:
        case.speaks_for(0.3, f"{pulled[0]} receives gradients (norm {figure(pulled[1])}) and never moves")
    if not outside:
        case.speaks_against(0.7, "an optimizer holds them")
        rate = schedule(run).at(finding.last_step)
        if rate == 0:
            case.speaks_against(0.8, "the learning rate is zero")
    return case.weight()


def _with_gradient(run: Run, names: set[str]) -> tuple[str, float] | None:
    """One of these parameters that received gradients, and their median norm."""
    if "grad.norm" not in run:
        return None
    table = run.table("grad.norm")
    for column, name in enumerate(table.names):
        if name in names:
            norms = table.values[:, column]
            norms = norms[np.isfinite(norms) & (norms > 0)]
            if len(norms):
                return name, float(np.median(norms))
    return None
