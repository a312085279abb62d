"""Which of several places comes first: by time, then along the way of a training step."""

from __future__ import annotations

from stabdiag.analysis.precedence import BACKWARD
from stabdiag.core.site import Site

Place = tuple[int, int, int, int, str, str]

STAGES = (
    ("initial",),
    ("run.lr", "run.samples", "run.tokens", "run.micro_batches", "run.loss_scale", "mode"),
    ("batch",),
    ("output", "attention", "router", "latent", "tokens", "saturation", "normalization", "distribution"),
    ("logits",),
    ("run.loss", "targets", "side"),
    ("output_grad", "distribution_grad"),
    ("grad", "run.grad_norm"),
    ("optimizer", "run.clipped_grad_norm"),
    ("update",),
    ("weight", "replica"),
)
"""Kinds and series in the order in which a step makes them; those that are not named come last."""

STAGE = {name: (stage, turn) for stage, names in enumerate(STAGES) for turn, name in enumerate(names)}
UNKNOWN = 10**9


def place_of(series: str, site: Site, step: int) -> Place:
    """Sorts what is most upstream first; in a backward pass that is the latest layer."""
    stage, turn = STAGE.get(series, STAGE.get(site.kind, (len(STAGES), 0)))
    order = site.order if site.order >= 0 else UNKNOWN
    return step, stage, -order if site.kind in BACKWARD else order, turn, series, site.name
