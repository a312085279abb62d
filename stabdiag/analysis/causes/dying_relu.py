from __future__ import annotations

import numpy as np

from stabdiag.analysis.anatomy import RECTIFIERS, modules
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

SMOOTH = ("GELU", "SiLU", "LeakyReLU", "PReLU", "ELU", "SELU", "Mish", "Softplus", "Tanh", "Sigmoid")


@cause(
    "dying-relu",
    title="Rectified units have been pushed below zero for good",
    fixes=("change-activation", "lower-learning-rate", "reinitialize-dead-units", "rescale-init"),
)
def dying_relu(run: Run, finding: Finding) -> Weight | None:
    """A ReLU that outputs zero for every sample receives no gradient, and nothing brings it back.

    Dead units show as rows of a weight whose gradient is exactly zero over thousands of samples, and
    as outputs that are zero nearly everywhere. Where they die at once, a long update pushed their
    biases down: then the learning rate is the deeper cause. Where they are dead at step 0, the
    initialization or the scale of the input is. A layer that is sparse in one batch is not dead.

    Reference: Lu et al., Dying ReLU and Initialization, https://arxiv.org/abs/1903.06733; Sokar et
    al., The Dormant Neuron Phenomenon in Deep Reinforcement Learning, https://arxiv.org/abs/2302.12902
    """
    case, types = Case(), set(modules(run).values())
    dead = _share(run, "grad.dead", finding)
    case.speaks_for(
        0.7 * ramp(dead, 0.2, 0.9), f"{100 * dead:.0f} % of the units received no gradient from any sample"
    )
    zeros = _share(run, "output.zeros", finding)
    case.speaks_for(
        0.5 * ramp(zeros, 0.7, 0.98), f"{100 * zeros:.0f} % of the outputs of the layer were exactly zero"
    )
    rectified = sorted(types.intersection(RECTIFIERS))
    if rectified:
        case.speaks_for(0.2, f"the model uses {rectified[0]}")
    elif types.intersection(SMOOTH):
        case.speaks_against(0.7, f"its activation is {min(types.intersection(SMOOTH))}, which does not die")
    if not dead and not zeros:
        return None
    update = history(run, "update.ratio", finding.sites[0] if finding.sites else "").peak(
        max(finding.onset_step - 50, 1), finding.onset_step
    )
    if update is not None:
        case.speaks_for(
            0.3 * ramp(update[1], 0.05, 0.5),
            f"an update of {figure(update[1])} of the weight's norm came before, at step {update[0]}",
        )
    return case.weight()


def _share(run: Run, series: str, finding: Finding) -> float:
    """The largest value of a share, from onset to end, at the sites of the finding or their modules."""
    if series not in run:
        return 0.0
    table = run.window(finding.onset_step, finding.last_step).table(series)
    names = {*finding.sites, *(name.rpartition(".")[0] for name in finding.sites)}
    columns = [i for i, s in enumerate(table.sites) if s.name in names or s.module in names]
    values = table.values[:, columns]
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
