"""What is seen by comparing the processes of a world."""

from __future__ import annotations

from stabdiag.render.view import VIEWS, View

VIEWS.add(
    View(
        "rank",
        "Ranks",
        "One line a process. Where they wait for each other, steps are equally long for all: a straggler"
        " takes longer for its data or its forward pass, the others for their backward pass.",
        {"*_time": "s", "loss": "loss", "grad_norm": "norm", "memory": "MiB"},
        first=("data_time", "forward_time", "backward_time", "memory"),
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
