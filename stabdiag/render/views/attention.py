from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.panel import Panel, heat
from stabdiag.render.view import VIEWS, View


def _panels(run: Run, kind: str) -> Iterator[Panel | None]:
    yield heat(
        run,
        "attention.entropy_ratio",
        "Entropy as a share of ln(keys that the row may see): 1 is uniform, 0 is one key",
        lowest=True,
    )
    if "attention.entropy_ratio" not in run:
        yield heat(run, "attention.entropy", "Entropy (nats)", lowest=True)
    yield heat(run, "attention.max_logit", "Largest logit, scale · q·k")


VIEWS.add(
    View(
        "attention",
        "Attention",
        "By layer and head. Logits that grow make the softmax pick one key: the entropy falls, and little "
        "gradient is left.",
        {
            "entropy": "nats",
            "entropy_ratio": "share of ln(visible keys)",
            "entropy_rest": "nats, without the first key",
            "max_logit": "logit",
            "max_logit_upper": "logit, upper bound",
            "exact": "1 exact, 0 of a sample",
        },
        _panels,
    )
)
