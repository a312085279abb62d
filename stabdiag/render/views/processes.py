"""What is seen by comparing the processes of a world."""

from __future__ import annotations

from stabdiag.render.view import VIEWS, View

VIEWS.add(
    View(
        "rank",
        "Ranks",
        "One line a process: a straggler takes longer, a loss of its own has a shard of its own.",
        {"step_time": "s", "loss": "loss", "grad_norm": "norm", "memory": "MiB"},
        first=("step_time", "loss", "grad_norm", "memory"),
    )
)
VIEWS.add(
    View(
        "replica",
        "Replicas",
        "Fingerprints of the parameters that every process should hold alike.",
        {"fingerprint": "integer, equal for equal values", "differs": "ranks", "odd_rank": "rank"},
    )
)
