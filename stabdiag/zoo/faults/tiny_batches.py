from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "tiny-batches",
    signatures=("noise-dominated",),
    causes=("batch-too-small",),
    fixes=("larger-batch", "lower-learning-rate"),
    follows=("loss-plateau", "context-blind-plateau", "oscillating-plateau"),
    needs=("gpt|mlp|lstm",),
    batch=1,
    steps=1200,
    least="info",
)
def plant(training: Training, dose: float) -> Planted:
    """One sample a batch, and a rate that never falls: late in training, gradients are noise."""
    training.final = 1.0
    return Planted(shows=training.steps)
