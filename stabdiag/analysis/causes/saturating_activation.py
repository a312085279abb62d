from __future__ import annotations

import numpy as np

from stabdiag.analysis.anatomy import SATURATING, gradient_slope, modules, of_type
from stabdiag.analysis.case import Case, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "saturating-activation",
    title="Saturating activations block the gradient",
    fixes=("change-activation", "add-normalization", "rescale-init"),
)
def saturating_activation(run: Run, finding: Finding) -> Weight | None:
    """Sigmoid or tanh units sit on the flat ends of their curve, where their derivative is near zero.

    A sigmoid passes at most a quarter of the gradient even unsaturated, so a deep stack of them fades
    it by 0.6 decades a layer and more. Saturation shows in the outputs: values near the bounds only,
    which makes rms²/mean of a sigmoid, and rms of a tanh, approach 1.

    Reference: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010
    """
    names, case, types = of_type(run, SATURATING), Case(), modules(run)
    seen = finding.facts.get("saturated_share", 0.0)
    if not names and not seen:
        return None
    case.speaks_for(
        0.5 * ramp(seen, 0.25, 0.8),
        f"{100 * seen:.0f} % of its outputs lie where its slope is next to nothing",
    )
    sigmoids = [name for name in names if "igmoid" in types[name]]
    if len(sigmoids) > 1:
        case.speaks_for(
            0.5 * ramp(len(sigmoids), 1, 6),
            f"{len(sigmoids)} sigmoid layers each pass a quarter of the gradient at best",
        )
    saturated = _saturated(run, names, finding.onset_step)
    case.speaks_for(
        0.7 * ramp(saturated, 0.25, 0.8),
        f"{100 * saturated:.0f} % of the {len(names)} such layers are saturated",
    )
    slope = gradient_slope(run, finding.onset_step)
    if slope is not None:
        case.speaks_for(
            0.4 * ramp(slope.per_layer, 0.2, 0.8),
            f"the gradient shrinks by {slope.per_layer:.2f} decades a layer toward the input",
        )
    return case.weight()


def _saturated(run: Run, names: list[str], step: int) -> float:
    """Share of these layers whose outputs lie at the bounds of their activation."""
    if "output.rms" not in run or "output.mean" not in run:
        return 0.0
    near = run.window(max(step - 1, 0), step + 20)
    rms, mean, types = near.table("output.rms"), near.table("output.mean"), modules(run)
    columns = [i for i, site in enumerate(rms.sites) if site.name in names]
    if not len(rms.steps) or not columns:
        return 0.0
    square = np.square(rms.values[:, columns].astype(np.float64))
    positive = np.array(["igmoid" in types[rms.sites[i].name] for i in columns])
    level = np.where(positive, square / np.maximum(mean.values[:, columns], 1e-9), square)
    flat = np.nan_to_num(level, nan=0.0)[-1] > 0.9
    return float(np.mean(flat))
