"""Whether a run's command trained the bundled model."""

from __future__ import annotations

from collections.abc import Sequence

TRAINER, PLANT = "stabdiag.reference.train", "stabdiag.zoo.plant"


def trainer_arguments(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """The module that trained it, TRAINER or PLANT, and its arguments; None for any other command."""
    words = list(command)
    for module in (TRAINER, PLANT):
        if module in words[1:] and words[words.index(module) - 1] == "-m":
            return module, words[words.index(module) + 1 :]
    return None
