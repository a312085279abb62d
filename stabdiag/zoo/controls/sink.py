from __future__ import annotations

import torch

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("massive-activation", needs=("gpt",))
def prepare(training: Training) -> None:
    """The first position has an embedding a hundred times the others', as language models grow themselves."""
    with torch.no_grad():
        training.model.get_parameter("positions.weight")[0, 3] = 20.0
