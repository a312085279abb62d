from __future__ import annotations

import torch
from torch import Tensor

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Batch, Training


@fault(
    "half-without-scaling",
    signatures=("low-precision-loss",),
    causes=("precision-underflow",),
    fixes=("loss-scaling", "use-bfloat16"),
    follows=("vanishing-gradient", "update-ratio-low", "lr-starvation", "loss-plateau"),
    doses=(1.0, 1e3, 1e5),
    found_from=1e5,
    without=("adversarial", "recurrent"),
    optimizers=("adaptive",),
)
def plant(training: Training, dose: float) -> Planted:
    """The backward pass runs in float16 with no scaling of the loss, and gradients are small, as those of a
    mean over many tokens are: what is below its smallest number is lost."""
    training.autocast = torch.float16
    sound = training.loss

    def loss(batch: Batch) -> Tensor:
        value = sound(batch)
        # The value stays what it is; its gradient alone is divided.
        return value / dose + (value - value / dose).detach()

    training.loss = loss
    return Planted(shows=training.steps)
