"""What goes in, and what the loss makes of it."""

from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind
from stabdiag.render.kinds.layers import EXTENT

TARGETS = {
    "loss": "loss",
    "spread": "loss, between the samples",
    "max": "loss, of the worst sample",
    "worst": "index in the batch",
    "outlying": "spreads",
    "surprise": "standard deviations",
    "surprised": "standard deviations",
    "agreement": "share of labels",
    "constant": "loss",
    "seen": "targets",
    "variety": "of the targets",
    "variety_seen": "of the targets",
    "rms": "unit of the targets",
}
EVALUATION = {
    "loss": "loss",
    "batches": "batches",
    "agreement": "share of labels",
    "seconds": "s",
    "training": "1 in training mode",
}
KINDS.add(Kind("batch", "Batches", {**EXTENT, "fingerprint": "integer, equal for equal batches"}))
KINDS.add(Kind("targets", "Targets", TARGETS, "Of the samples of a batch, as the loss saw them."))
KINDS.add(Kind("evaluation", "Evaluations", EVALUATION, "Forward passes without gradients between steps."))
