from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("anneal-kl", title="Lower the weight of the divergence, and let it grow slowly")
def anneal_kl(run: Run, finding: Finding) -> Change | None:
    """Weighs the divergence by a factor that grows from 0 over the first tenth of the training, to a value at
    which the latent variables still pay.

    It costs nothing. Annealing alone does not cure a weight that is too large in the end: lower it too. It
    worked when the divergence stays above a nat an item once the weight has come to its end.
    """
    if not run.sites("latent"):
        return None
    value = finding.facts.get("kl")
    steps = max(run.steps // 10, 100)
    told = f": the divergence is {figure(value)} nat" if value is not None else ""
    return Change(
        f"a tenth of the weight of the divergence, reached from 0 over {steps:,} steps{told}",
        f"weight = 0.1 * final_weight * min(1.0, step / {steps})\n"
        "loss = reconstruction + weight * divergence",
        {"kl_scale": 0.1},
    )
