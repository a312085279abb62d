from __future__ import annotations

from stabdiag.zoo.control import control
from stabdiag.zoo.training import Training


@control("frozen-layers", needs=("stream|classes",))
def prepare(training: Training) -> None:
    """The first block is frozen on purpose: its parameters ask for no gradient."""
    training.model.get_submodule(training.parts.blocks[0]).requires_grad_(False)
