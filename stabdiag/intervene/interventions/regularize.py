from __future__ import annotations

from stabdiag.intervene.intervention import Value, intervention
from stabdiag.intervene.interventions.raise_weight_decay import RaiseWeightDecay


@intervention(
    "regularize",
    title="Regularize by weight decay",
    takes=Value("weight decay", above=0),
    advice=("weight_decay",),
)
class Regularize(RaiseWeightDecay):
    """What `raise-weight-decay` does: of the ways to regularize it is the one that needs no change of the
    model."""
