from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("batchnorm-momentum", title="Let the running statistics of batch normalization follow")
def batchnorm_momentum(run: Run, finding: Finding) -> Change | None:
    """Sets the momentum of batch normalization to 0.1, or computes its statistics anew before evaluation.

    It costs nothing, or 50 batches without gradients. It worked when `normalization.mismatch` is below 0.2
    and the loss of an evaluation on training data is that of training.
    """
    named = {site.name for site in run.sites("normalization") if "BatchNorm" in site.module_type}
    if not named:
        return None
    off = finding.facts.get("mismatch")
    momentum = 0.1 if run.steps < 1000 else 0.01
    told = f": evaluation moves their outputs by {figure(off)} standard deviations" if off is not None else ""
    return Change(
        f"a momentum of {momentum:g} for the {len(named)} batch normalizations{told}",
        "for module in model.modules():\n"
        "    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):\n"
        f"        module.momentum = {momentum:g}\n"
        "# or, before evaluation: module.reset_running_stats(), module.momentum = None, then 50 batches of\n"
        "# training data in training mode under torch.no_grad()",
    )
