from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "heavy-decay",
    signatures=("weight-norm-drift", "loss-plateau", "context-blind-plateau"),
    causes=("weight-decay-too-high",),
    fixes=("lower-weight-decay",),
    follows=("vanishing-gradient", "attention-uniform", "rank-collapse"),
    doses=(1.0, 10.0, 100.0),
    found_from=100.0,
    optimizers=("decays",),
)
def plant(training: Training, dose: float) -> Planted:
    """Weight decay pulls all matrices to zero faster than they learn."""
    make = training.make_optimizer

    def heavy(parameters: Sequence[nn.Parameter], lr: float) -> Optimizer:
        optimizer = make(parameters, lr)
        for group in optimizer.param_groups:
            if group["weight_decay"]:
                group["weight_decay"] = dose
        return optimizer

    training.make_optimizer = heavy
    return Planted(shows=training.steps)
