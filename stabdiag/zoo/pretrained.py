"""A model that was trained before: the same training to its end, which no recorder sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.training import Training

RECORDED = "STABDIAG_RUN"
"""Is in the environment of a process that `stabdiag run` records from its start on."""

FRESH = 10_000
"""The number of the first batch that is trained with afterwards: none of them came before."""


def pretrain(training: Training) -> None:
    """Trains it as it is, and makes it a new training, of the model that came out. In a recorded process
    another one does it, unrecorded, which comes to the same weights."""
    if RECORDED in os.environ:
        _elsewhere(training)
    else:
        training.prepare()
        training.run()
        training.optimizers.clear()
        training.losses.clear()
    torch.manual_seed(training.seed)
    sound = training.parts.batches
    training.parts.batches = lambda index: sound(index + FRESH)


def _elsewhere(training: Training) -> None:
    environment = {name: value for name, value in os.environ.items() if name != RECORDED}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.pt")
        command = [sys.executable, "-m", __name__, json.dumps(training.recipe), str(weights)]
        subprocess.run(command, env=environment, check=True)
        training.model.load_state_dict(torch.load(weights))


def main(recipe: str, weights: str) -> None:
    torch.set_num_threads(1)
    asked = json.loads(recipe)
    training = ARCHITECTURES[asked.pop("architecture")].training(**asked)
    training.prepare()
    training.run()
    torch.save(training.model.state_dict(), weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
