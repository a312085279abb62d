from __future__ import annotations

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "heavy-kl",
    signatures=("vae-posterior-collapse",),
    causes=("kl-weight-too-high",),
    fixes=("anneal-kl", "free-bits"),
    follows=("loss-plateau", "context-blind-plateau"),
    needs=("latent",),
    broken={"beta": 50.0},
)
def plant(training: Training, dose: float) -> Planted:
    """The divergence from the prior weighs fifty times what it should: the code says nothing of the
    picture."""
    return Planted(0, shows=training.steps)
