from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("guard-operation", title="Keep the operation inside its domain")
def guard_operation(run: Run, finding: Finding) -> Change:
    """Clamps what goes into a log, a square root, a division or an exponential.

    It costs nothing; choose a bound that real values never reach. `torch.where` after the operation is
    not enough, since the gradient of the branch not taken is 0 times infinity. Anomaly mode names the
    line, at half the speed. It worked when nothing is non-finite at the place.
    """
    placed = [site for site in finding.sites if site != "run"]
    where = (
        f"at {placed[0]}, which was the first to be non-finite, at step {finding.onset_step}"
        if placed
        else f"in the layer or the loss that was non-finite at step {finding.onset_step}: "
        "`stabdiag run --every 1` shows which"
    )
    return Change(
        f"clamp the input of log, sqrt, division and exp {where}",
        "torch.autograd.set_detect_anomaly(True)  # names the operation; remove it afterwards\n"
        "\n"
        "logarithm = torch.log(x.clamp_min(1e-6))\n"
        "root = torch.sqrt(x.clamp_min(1e-12))\n"
        "quotient = x / y.clamp_min(1e-6)\n"
        "exponential = torch.exp(x.clamp_max(30.0))",
    )
