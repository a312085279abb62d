from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import lowered_rate, optimizer_name, rate_at_fault, rounded
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("lower-learning-rate", title="Lower the learning rate")
def lower_learning_rate(run: Run, finding: Finding) -> Change | None:
    """Shortens every update, to a median update ratio of the weight matrices near 0.01.

    It costs speed: progress a step falls in proportion. Weights that have already blown up stay in a
    bad region, so start again or roll back as well. It worked when the update ratio stays below 0.03
    after the first steps and the loss falls past the place where it broke.
    """
    if finding.facts.get("others"):
        return _of_one_layer(finding)
    near = ratio_near(run, finding.onset_step)
    if finding.onset_step == 0 and near is not None and near[1] <= HEALTHY_RATIO:
        return None  # it was so before the first update, and the updates are not long
    rate = rate_at_fault(run, finding.onset_step)
    factor, reason = lowered_rate(run, finding.onset_step)
    if rate is None:
        return Change(
            f"multiply the learning rate by {figure(factor)}: {reason}",
            f'for group in optimizer.param_groups:\n    group["lr"] *= {factor:.2g}',
            {"lr_scale": factor},
        )
    target = rounded(rate * factor)
    return Change(
        f"learning rate {figure(rate)} → {figure(target)}: {reason}",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), lr={target:g})  # other "
        "arguments as before",
        {"lr_scale": target / rate},
    )


def _of_one_layer(finding: Finding) -> Change:
    """Where one matrix moves out of proportion to the others: its own rate."""
    name = finding.sites[0]
    factor = finding.facts["others"] / finding.facts["update_ratio"]
    return Change(
        f"multiply the learning rate of the group that holds {name} by {figure(factor)}: a step changed it "
        f"by {figure(100 * finding.facts['update_ratio'])} %, where it changed the others by "
        f"{figure(100 * finding.facts['others'])} %",
        f"hot = dict(model.named_parameters())[{name!r}]\n"
        "for group in optimizer.param_groups:\n"
        '    if any(parameter is hot for parameter in group["params"]):\n'
        f'        group["lr"] *= {factor:.2g}',
    )
