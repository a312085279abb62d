from __future__ import annotations

import numpy as np

from stabdiag.analysis.adaptive import epsilon
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import History, history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "optimizer-epsilon",
    title="The optimizer's epsilon does not fit the size of the gradients",
    fixes=("lower-epsilon", "raise-epsilon"),
)
def optimizer_epsilon(run: Run, finding: Finding) -> Weight | None:
    """The epsilon is larger than the root of the second moment, or so small that it never matters.

    A large one turns Adam and its like into gradient descent with tiny steps: a loss that is averaged twice,
    very wide layers, and a value taken over from elsewhere do so. Near the size of the gradients it keeps
    coordinates in step with each other. Its look-alike is a parameter without gradients, whose second moment
    is zero.

    Reference: Wortsman et al., Small-scale proxies for large-scale Transformer training instabilities,
    https://arxiv.org/abs/2309.14322
    """
    eps = epsilon(run)
    share = _middle(run, "optimizer.eps_share", finding)
    if eps is None and share is None:
        return None
    case, named = Case(), "" if eps is None else f" of {figure(eps)}"
    if share is not None:
        case.speaks_for(
            0.9 * ramp(share, 0.2, 0.7),
            f"in {100 * share:.0f} % of the coordinates the root of the second moment was below the "
            f"epsilon{named}",
        )
    size = gradient_rms(run, finding)
    if eps is not None and size is not None and finding.signature == "adam-correlated-update":
        case.speaks_for(
            0.6 * ramp(size / eps, 1e3, 10),
            f"gradients of {figure(size)} in rms are near the epsilon{named}",
        )
    if eps is not None and size is not None and finding.signature == "adam-stale-second-moment":
        case.speaks_for(
            0.15 * ramp(eps / size, 1e-2, 1e-4),
            f"the epsilon{named} is nothing against gradients of {figure(size)} in rms: it does not bound "
            "coordinates that were silent for long",
        )
    return case.weight()


def gradient_rms(run: Run, finding: Finding) -> float | None:
    """The usual root mean square of the gradients at the sites of `finding`, while it lasted."""
    found = []
    for site in run.sites("grad"):
        if site.name in finding.sites:
            norms = (
                history(run, "grad.norm", site.name).within(finding.onset_step, finding.last_step).finite()
            )
            if len(norms):
                found.append(float(np.median(norms.values)) / max(site.size, 1) ** 0.5)
    return float(np.median(found)) if found and np.median(found) > 0 else None


def _middle(run: Run, series: str, finding: Finding) -> float | None:
    """The median over the sites of `finding`, or over all, while it lasted."""
    sites = [site.name for site in run.sites("optimizer") if site.name in finding.sites]
    found: list[History] = [
        history(run, series, name).within(finding.onset_step, finding.last_step).finite() for name in sites
    ]
    values = [float(np.median(seen.values)) for seen in found if len(seen)]
    return float(np.median(values)) if values else None
