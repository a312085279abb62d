from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "large-epsilon",
    signatures=("adam-eps-dominated",),
    causes=("optimizer-epsilon",),
    fixes=("lower-epsilon", "raise-learning-rate"),
    follows=("update-ratio-low", "lr-starvation", "loss-plateau"),
    doses=(1e-4, 1e-2, 1.0),
    found_from=1.0,
    optimizers=("adaptive",),
)
def plant(training: Training, dose: float) -> Planted:
    """Epsilon is far above the square root of the second moment: what is left of the updates is small."""
    sound = training.make_optimizer

    def make(parameters: Sequence[nn.Parameter], lr: float) -> Optimizer:
        optimizer = sound(parameters, lr)
        for group in optimizer.param_groups if not training.optimizers else ():
            group["eps"] = (dose, *group["eps"][1:]) if isinstance(group["eps"], tuple) else dose
        return optimizer

    training.make_optimizer = make
    return Planted(shows=training.steps)
