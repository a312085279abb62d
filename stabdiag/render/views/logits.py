from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.panel import Panel, lines
from stabdiag.render.view import VIEWS, View


def _panels(run: Run, kind: str) -> Iterator[Panel | None]:
    yield lines(run, kind, ["max", "log_z", "mean"], "Largest and mean logit, and mean log Z (nats)", "nats")
    yield lines(run, kind, ["entropy"], "Entropy of the prediction (nats)", "nats")


VIEWS.add(
    View(
        "logits",
        "Logits of the prediction",
        "Log Z is the logarithm of the softmax's denominator; where it drifts, precision is lost.",
        {"log_z": "nats", "mean": "nats", "max": "nats", "entropy": "nats"},
        _panels,
    )
)
