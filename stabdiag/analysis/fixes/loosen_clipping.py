from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.analysis.prescription import TARGET_RATIO, rounded, usual_gradient_norm
from stabdiag.analysis.step_size import schedule, second_beta
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("loosen-clipping", title="Raise the limit of the gradient norm")
def loosen_clipping(run: Run, finding: Finding) -> Change | None:
    """Sets the limit a little above the usual norm, so that it holds spikes back and nothing else.

    It costs protection only against what is usual. Without a second moment the steps become longer by the
    factor that was clipped away, so that the learning rate may have to fall with it. It worked when less than
    a tenth of the steps are clipped. Of gradients that a GradScaler has scaled it takes `unscale_` before.
    """
    usual, limit = usual_gradient_norm(run, finding.last_step), history(run, "run.clipped_grad_norm")
    now = limit.usual(finding.last_step + 1)
    if usual is None or now is None or now > 0.9 * usual:
        return None
    if finding.facts.get("unscaled"):
        return Change(
            f"unscale the gradients before they are clipped: a norm of {figure(usual)} still held the "
            "loss scale",
            "scaler.unscale_(optimizer)  # before clipping\n"
            f"torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm={now:g})\n"
            "scaler.step(optimizer)\n"
            "scaler.update()",
        )
    wanted = rounded(1.3 * usual)
    text = (
        f"clip at {figure(wanted)} instead of {figure(now)}: the norm is {figure(usual)} in the median "
        f"(Trainer: max_grad_norm={wanted:g}; Lightning: gradient_clip_val={wanted:g})"
    )
    code = (
        f"torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm={wanted:g})  # before optimizer.step()"
    )
    ratio, rate = finding.facts.get("update_ratio"), schedule(run).at(finding.last_step)
    longer = min(usual, wanted) / now
    if second_beta(run) is None and ratio and rate and ratio * longer > TARGET_RATIO:
        lower = rounded(rate * TARGET_RATIO / (ratio * longer))
        if lower < rate:
            text += (
                f", and the learning rate {figure(rate)} → {figure(lower)}, as steps get "
                f"{figure(longer)} times longer"
            )
            code += f'\nfor group in optimizer.param_groups:\n    group["lr"] = {lower:g}'
    return Change(text, code, {"clip_norm": wanted})
