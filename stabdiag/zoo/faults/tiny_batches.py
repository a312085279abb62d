from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "tiny-batches",
    signatures=("noise-dominated",),
    causes=("batch-too-small",),
    fixes=("larger-batch", "lower-learning-rate"),
    follows=("loss-plateau", "oscillating-plateau"),
    needs=("gpt|mlp|lstm",),
    batch=2,
    least="info",
)
def plant(training: Training, dose: float) -> Planted:
    """Two samples a batch, split in micro-batches of accumulation, late in training: gradients are noise."""
    training.accumulate, training.final = 2, 1.0
    return Planted(shows=training.steps)
