from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("reinitialize-dead-units", title="Give dead units fresh weights")
def reinitialize_dead_units(run: Run, finding: Finding) -> Change | None:
    """Redraws the incoming weights of units that never receive a gradient, and zeroes their bias.

    It costs little, and the loss hardly moves if the outgoing weights are zeroed too. What killed them
    kills them again unless it is cured. It worked when `grad.dead` falls and stays low.
    """
    if not finding.sites:
        return None
    sites = {site.name: site for site in run.sites("grad")}
    module = sites[finding.sites[0]].module if finding.sites[0] in sites else finding.sites[0]
    if not module:
        return None
    share = f": {100 * finding.value:.0f} % are dead" if finding.value and finding.value <= 1 else ""
    return Change(
        f"redraw the dead units of {module}{share}",
        f"layer = model.get_submodule({module!r})\n"
        "dead = layer.weight.grad.flatten(1).abs().sum(1) == 0  # better: over several batches\n"
        "fresh = torch.empty_like(layer.weight)\n"
        "torch.nn.init.kaiming_uniform_(fresh)\n"
        "with torch.no_grad():\n"
        "    layer.weight[dead] = fresh[dead]\n"
        "    layer.bias[dead] = 0",
    )
