from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

LARGEST_HALF = 65504.0
"""The largest finite float16."""


@cause(
    "precision-overflow",
    title="A value left the range of float16",
    fixes=("use-bfloat16", "fp32-operation", "skip-nonfinite-steps", "lower-learning-rate"),
    moves_first=("run.loss_scale",),
)
def precision_overflow(run: Run, finding: Finding) -> Weight | None:
    """Activations or scaled gradients passed 65,504, the largest float16, and became infinite.

    It announces itself: absmax climbs to a tenth of that limit over tens of steps, or the dynamic loss
    scale keeps falling. In bfloat16 and float32 the range is 3e38 and this is not the cause. A first
    few skipped steps, while the loss scale settles, are normal.

    Reference: Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740
    """
    case, onset = Case(), finding.onset_step
    half = [site for kind in ("output", "weight") for site in run.sites(kind) if "float16" in site.dtype]
    half = [site for site in half if "bfloat16" not in site.dtype]
    scale = history(run, "run.loss_scale").within(0, onset).finite()
    if not half and not len(scale):
        return None
    reach = _largest(run, onset, {site.name for site in half})
    if half and reach is not None:
        case.speaks_for(
            0.9 * ramp(reach[1], 0.05 * LARGEST_HALF, 0.5 * LARGEST_HALF),
            f"{reach[0]} reached {figure(reach[1])}, and float16 ends at 65,504",
        )
        case.speaks_against(0.5 * ramp(reach[1], 1000, 50), f"no float16 output was above {figure(reach[1])}")
    if len(scale) and scale.values[-1] < scale.values.max():
        case.speaks_for(
            0.6 * ramp(float(scale.values.max() / max(scale.values[-1], 1e-30)), 4, 256),
            f"the loss scale had fallen from {figure(float(scale.values.max()))} to "
            f"{figure(float(scale.values[-1]))}",
        )
    lowest = finding.facts.get("scale_end")
    if finding.signature == "loss-scale-thrash" and lowest is not None:
        # What is not finite by itself stays so at any scale, which then falls without end.
        case.speaks_for(
            0.6 * ramp(lowest, 1.0, 128.0),
            f"steps were withheld and others went through at a scale of {figure(lowest)} and above",
        )
    if half and not case.weight():
        case.speaks_for(0.2, f"{half[0].name} computes in float16, and its values were not recorded")
    return case.weight()


def _largest(run: Run, last: int, names: set[str]) -> tuple[str, float] | None:
    """The site with the largest finite output within 100 steps up to `last`, and that value."""
    if "output.absmax" not in run:
        return None
    table = run.window(max(last - 100, 0), last).table("output.absmax")
    columns = [i for i, site in enumerate(table.sites) if site.name in names]
    values = table.values[:, columns]
    values = np.where(np.isfinite(values), values, -1.0)
    if not values.size or values.max() < 0:
        return None
    column = int(np.argmax(values.max(axis=0)))
    return table.sites[columns[column]].name, float(values[:, column].max())
