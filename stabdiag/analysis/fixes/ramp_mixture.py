from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import rate_at_fault
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("ramp-mixture", title="Mix new data in little by little")
def ramp_mixture(run: Run, finding: Finding) -> Change:
    """Raises the share of the new data from 0 over hundreds of steps, with the learning rate warmed up again.

    It costs the time of the ramp. GLM-130B recovered only with both, over 2,000 steps. It worked when the
    loss passes the change without a step of more than its noise.
    """
    length = max(200, min(2000, round(run.steps / 10, -2)))
    rate = rate_at_fault(run, finding.onset_step)
    again = f", with the learning rate warmed up to {figure(rate)} over as many" if rate is not None else ""
    return Change(
        f"from step {finding.onset_step} raise the share of the new data from 0 to 1 over {length:.0f} "
        f"steps{again}",
        f"share = min(1.0, (step - {finding.onset_step}) / {length:.0f})\n"
        "batch = next(new_data) if random.random() < share else next(old_data)",
    )
