from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import lowered_rate, optimizer_name, rate_at_fault, rounded
from stabdiag.analysis.step_size import HEALTHY_RATIO, matrix_ratio, ratio_near, schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

SETTLED = 40
"""Steps after the peak was reached in which the updates tell what it does."""


@fix("lower-learning-rate", title="Lower the learning rate")
def lower_learning_rate(run: Run, finding: Finding) -> Change | None:
    """Shortens every update, to a median update ratio of the weight matrices near 0.01.

    Where it broke while the rate still rose, it is the peak of the schedule that is lowered, and all rates
    with it.

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
    plan, of = schedule(run), ""
    rising = finding.onset_step < plan.warmup and plan.rising(max(finding.onset_step, 3))
    if rate is not None and rising:
        factor, reason = _on_the_way_up(run, finding.onset_step, rate, (factor, reason))
        rate, of = plan.peak, "peak "
    if rate is None:
        return Change(
            f"multiply the learning rate by {figure(factor)}: {reason}",
            f'for group in optimizer.param_groups:\n    group["lr"] *= {factor:.2g}',
            {"lr_scale": factor},
        )
    target = rounded(rate * factor)
    return Change(
        f"{of}learning rate {figure(rate)} → {figure(target)}: {reason}",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), lr={target:g})  # other "
        "arguments as before",
        {"lr_scale": target / rate},
    )


def _on_the_way_up(run: Run, onset: int, rate: float, there: tuple[float, str]) -> tuple[float, str]:
    """The factor for the whole schedule, and the reason, of a fault that came while the rate still rose, at
    `rate` and with the factor `there`: the lower of that and of what the updates at the peak ask for. Where
    the peak was not reached with finite weights, updates grow with the rate on the way to it."""
    plan = schedule(run)
    if len(matrix_ratio(run, plan.warmup, plan.warmup + SETTLED)):
        return min(there, lowered_rate(run, plan.warmup + SETTLED))
    return there[0] * rate / plan.peak, there[1]


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
