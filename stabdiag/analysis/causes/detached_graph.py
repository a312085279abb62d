from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause("detached-graph", title="The graph is cut before these parameters", fixes=("reattach-graph",))
def detached_graph(run: Run, finding: Finding) -> Weight | None:
    """The loss does not depend on these parameters as autograd sees it, although their module runs.

    Usual reasons: `.detach()`, `.data`, `.item()`, `torch.no_grad()`, a conversion through numpy, an
    in-place copy into a fresh tensor, or a module that is built but whose output is not used. Its
    look-alikes: parameters that no optimizer holds do receive gradients; vanishing gradients are
    small but not exactly absent; parameters with `requires_grad=False` are frozen on purpose.

    Reference: https://pytorch.org/docs/stable/notes/autograd.html
    """
    sites = {site.name: site for site in (*run.sites("grad"), *run.sites("weight"))}
    named = [sites[name] for name in finding.sites if name in sites and sites[name].trainable]
    if not named or "grad.norm" not in run:
        return None
    table = run.table("grad.norm")
    index = {name: column for column, name in enumerate(table.names)}
    # A parameter that the table lacks, or has only as NaN, never had a gradient at all.
    columns = [index[site.name] for site in named if site.name in index]
    norms = table.values[:, columns]
    measured = int(np.sum(~np.isnan(norms).all(axis=0)))
    zero = measured - int(np.sum(np.nan_to_num(norms).any(axis=0)))
    absent = len(named) - measured
    if not absent and not zero:
        return None
    case = Case()
    case.speaks_for(
        0.8 * absent / len(named),
        f"{absent} of {len(named)} trainable parameters had no gradient at any of {len(table.steps)} steps",
    )
    case.speaks_for(
        0.3 * zero / len(named),
        f"{zero} of {len(named)} had one that was exactly zero at all steps: cut off by the values rather "
        "than by the graph",
    )
    if not absent:
        return case.weight()
    ran = [site.module for site in named if site.order >= 0]
    if ran:
        case.speaks_for(0.5, f"{ran[0] or 'their module'} did run in the forward pass")
    else:
        case.speaks_against(0.2, "their modules never ran")
    return case.weight()
