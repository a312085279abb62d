from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("long-run", needs=("vectors|adversarial|latent|batchnorm",), steps=1500)
def prepare(training: Training) -> None:
    """Several times as long: the loss has long been flat in the end."""
