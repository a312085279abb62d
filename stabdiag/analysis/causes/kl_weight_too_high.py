from __future__ import annotations

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "kl-weight-too-high",
    title="The divergence weighs more than what the latent variables could gain",
    fixes=("anneal-kl", "free-bits"),
)
def kl_weight_too_high(run: Run, finding: Finding) -> Weight | None:
    """Each nat that a posterior says costs its weight in the loss; where it saves less in the reconstruction,
    saying nothing is cheapest.

    All dimensions go together then, early, and the divergence stays where it is. One that was large and
    fell while the decoder learned points to a decoder that needs no latent variables. Annealing does not cure
    a weight that is too large in the end.

    Reference: Bowman et al., Generating Sentences from a Continuous Space, https://arxiv.org/abs/1511.06349;
    Higgins et al., beta-VAE, 2017
    """
    if finding.signature != "vae-posterior-collapse":
        return None
    case, facts = Case(), finding.facts
    value, active, before = facts.get("kl", 1.0), facts.get("active", 0.0), facts.get("kl_peak", 0.0)
    case.speaks_for(
        0.5 + 0.4 * ramp(value, 1.0, 0.05),
        f"the divergence is {figure(value)} nat, and {100 * active:.0f} % of the dimensions are active",
    )
    case.speaks_against(
        0.3 * ramp(before, 5, 50),
        f"it had been {figure(before)} nat before, and the decoder may have learned to do without",
    )
    return case.weight()
