from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Batch, Training


@control("label-smoothing", needs=("classes",))
def prepare(training: Training) -> None:
    """Smoothed labels: the loss cannot come near zero."""

    def loss(batch: Batch) -> Tensor:
        *inputs, classes = batch
        return F.cross_entropy(training.model(*inputs), classes, label_smoothing=0.2)

    training.loss = loss
