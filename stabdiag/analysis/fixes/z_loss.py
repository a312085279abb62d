from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

WEIGHT = 1e-4


@fix("z-loss", title="Hold log Z near zero by a small penalty")
def z_loss(run: Run, finding: Finding) -> Change | None:
    """Adds 1e-4 · log² Z to the loss: a force on what all logits have in common, which the softmax does
    not see.

    It costs one more reduction over the logits. It worked when log Z stops to move, at an unchanged
    loss. From the start of a training on, it makes the head's weights larger and its last gain smaller.
    """
    sites = run.sites("logits")
    if not sites:
        return None
    name = next((site.name for site in sites if site.name in finding.sites), sites[0].name)
    values = history(run, "logits.log_z", name).finite()
    if not len(values):
        return None
    return Change(
        f"a z-loss of {figure(WEIGHT)} · log² Z on {name}: log Z went from {figure(values.values[0])} to "
        f"{figure(values.values[-1])}",
        "log_z = torch.logsumexp(logits.float(), dim=-1)\n"
        f"loss = torch.nn.functional.cross_entropy(logits, targets) + {WEIGHT:g} * log_z.square().mean()",
        {"z_loss": WEIGHT},
    )
