from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import listed
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("reattach-graph", title="Reconnect the parameters with the loss")
def reattach_graph(run: Run, finding: Finding) -> Change | None:
    """Removes what cuts the graph between these parameters and the loss.

    It costs the backward pass through them. It worked when every trainable parameter has a gradient
    after the first backward, which the snippet checks.
    """
    if not finding.sites:
        return None
    return Change(
        f"remove the detach, no_grad, .data or .item between {listed(finding.sites)} and the loss",
        "loss.backward()\n"
        "cut = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]\n"
        'assert not cut, f"no gradient reaches {cut}"',
    )
