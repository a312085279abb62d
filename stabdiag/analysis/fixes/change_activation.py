from __future__ import annotations

from stabdiag.analysis.anatomy import RECTIFIERS, SATURATING, of_type
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import listed
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("change-activation", title="Use an activation function that does not block the gradient")
def change_activation(run: Run, finding: Finding) -> Change:
    """Replaces sigmoid, tanh or ReLU between layers by GELU, which has a gradient nearly everywhere.

    It costs a retraining; trained weights do not carry over exactly. Keep a sigmoid that is the output
    or a gate. It worked when the share of dead or saturated units stays below 10 %.
    """
    blocking = of_type(run, (*SATURATING, *RECTIFIERS))
    where = listed(tuple(blocking)) if blocking else "the activations between layers"
    kinds = "torch.nn.ReLU" if of_type(run, RECTIFIERS) else "(torch.nn.Sigmoid, torch.nn.Tanh)"
    return Change(
        f"GELU instead of {where}, which blocks the gradient from step {finding.onset_step}",
        "for module in list(model.modules()):\n"
        "    for name, child in module.named_children():\n"
        f"        if isinstance(child, {kinds}):\n"
        "            setattr(module, name, torch.nn.GELU())",
    )
