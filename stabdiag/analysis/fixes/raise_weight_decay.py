from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import optimizer_name
from stabdiag.analysis.step_size import second_beta, weight_decay
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("raise-weight-decay", title="Raise the weight decay of matrices")
def raise_weight_decay(run: Run, finding: Finding) -> Change | None:
    """Holds the weights at a scale, within 1/(learning rate · decay) steps.

    It costs a little of the training loss. It worked when the norms of the matrices level off. Biases, gains
    of normalizations and embeddings want none.
    """
    decay, target = weight_decay(run) or 0.0, 0.1 if second_beta(run) is not None else 5e-4
    if decay >= target:
        return None
    grown = finding.facts.get("growth")
    saw = f": norms grew {figure(grown)}-fold" if grown and grown > 1 else ""
    name = optimizer_name(run)
    name = "AdamW" if name == "Adam" else name
    return Change(
        f"weight decay {figure(decay)} → {target:g} on matrices{saw} (Trainer: weight_decay={target:g})",
        "matrices = [p for p in model.parameters() if p.dim() >= 2]\n"
        "others = [p for p in model.parameters() if p.dim() < 2]\n"
        f"optimizer = torch.optim.{name}(  # other arguments as before\n"
        f'    [{{"params": matrices, "weight_decay": {target:g}}},\n'
        '     {"params": others, "weight_decay": 0.0}]\n'
        ")",
        {"weight_decay": target},
    )
