from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

WEIGHT = 0.01


@fix("balance-router", title="Reward an even use of the experts")
def balance_router(run: Run, finding: Finding) -> Change | None:
    """Adds a balance loss of 0.01 · experts · Σ load · mean probability, which is least when all are used
    alike.

    It costs next to nothing in time, and a little loss where experts had good reason to differ. Experts that
    are idle already come back slowly: start again, or give them the weights of the favourite and some noise.
    It worked when the entropy of the loads stays above 0.7 of the largest possible. In Hugging Face models
    set `output_router_logits=True` and `router_aux_loss_coef` in the configuration.
    """
    experts = finding.facts.get("experts")
    if finding.signature != "moe-router-collapse" or experts is None:
        return None
    largest = finding.facts.get("max_load", float("nan"))
    return Change(
        f"a balance loss of {WEIGHT:g} on {finding.sites[0]}: one of {experts:.0f} experts gets "
        f"{figure(100 * largest)} % of the choices, where {figure(100 / experts)} % is even",
        "probabilities = router_logits.softmax(-1)  # [tokens, experts]\n"
        "chosen = torch.zeros_like(probabilities).scatter_(-1, indices, 1.0)\n"
        f"balance = {experts:.0f} * (chosen.mean(0) / indices.shape[-1] * probabilities.mean(0)).sum()\n"
        f"loss = loss + {WEIGHT:g} * balance + 1e-3 * torch.logsumexp(router_logits, -1).square().mean()",
        {"balance_weight": WEIGHT},
    )
