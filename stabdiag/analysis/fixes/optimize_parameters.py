from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import listed, optimizer_name
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("optimize-parameters", title="Give the optimizer all trainable parameters")
def optimize_parameters(run: Run, finding: Finding) -> Change | None:
    """Adds the parameters that no optimizer holds, or says with `requires_grad` that they are frozen.

    It costs their optimizer state. It worked when their weights change. Build the optimizer after the
    last change to the model.
    """
    if not finding.sites:
        return None
    rate = schedule(run).peak
    with_rate = f', "lr": {rate:g}' if rate > 0 else ""
    return Change(
        f"add {listed(finding.sites)} to the {optimizer_name(run)}, or freeze with requires_grad_(False)",
        'held = {id(p) for group in optimizer.param_groups for p in group["params"]}\n'
        "missing = [p for p in model.parameters() if p.requires_grad and id(p) not in held]\n"
        f'optimizer.add_param_group({{"params": missing{with_rate}}})',
    )
