from __future__ import annotations

import numpy as np

from stabdiag.analysis.batches import outlier
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.leap import leap
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "hardware-corruption",
    title="The hardware computed a wrong value",
    fixes=("replay-step", "rollback"),
    moves_first=("weight.*", "output.*"),
    lead=(0, 1),
)
def hardware_corruption(run: Run, finding: Finding) -> Weight | None:
    """A flipped bit or a faulty unit changed a value, and no error was raised.

    One tensor alone is wrong, in one step, by orders of magnitude, while its neighbours, the batch and
    the other parameters are ordinary. It is rare, and only a replay of the step from the same state
    and batch can prove it: deterministic training gives the same again, a hardware fault does not.

    Reference: Ma et al., Understanding Silent Data Corruption in LLM Training,
    https://arxiv.org/abs/2502.12340
    """
    odd, leapt = _lone_jump(run, finding.onset_step), leap(run, finding.onset_step, far=30.0)
    if odd is None and leapt is None:
        return None
    case = Case()
    if odd is not None:
        case.speaks_for(
            0.8 * ramp(odd[1], 30, 1e3),
            f"the largest weight of {odd[0]} alone grew {figure(odd[1])}-fold by step {finding.onset_step}, "
            "no other parameter more than 2-fold",
        )
    if leapt is not None:
        case.speaks_for(0.7 * ramp(leapt.now / leapt.usual, 30, 1e3), leapt.words)
    if "written" in finding.facts:
        case.speaks_against(0.9, "autograd counts a write in place, which no hardware makes")
    batch = outlier(run, finding.onset_step)
    if batch is not None:
        case.speaks_against(0.7 * ramp(batch.multiple, 3, 10), "the batch was unusual")
    return case.weight()


def _lone_jump(run: Run, step: int) -> tuple[str, float] | None:
    """The one parameter whose largest value grew far between two records around `step`."""
    if "weight.absmax" not in run:
        return None
    table = run.table("weight.absmax")
    after = int(np.searchsorted(table.steps, step))
    if not 0 < after < len(table.steps) or len(table.sites) < 3:
        return None
    before, now = table.values[after - 1].astype(np.float64), table.values[after].astype(np.float64)
    usable = (before > 0) & np.isfinite(now)
    growth = np.where(usable, now / np.where(before > 0, before, 1.0), 1.0)
    most = int(np.argmax(growth))
    if growth[most] < 30 or float(np.max(np.delete(growth, most))) > 2:
        return None
    return table.sites[most].name, float(growth[most])
