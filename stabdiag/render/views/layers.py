"""The kinds of which the timeline, the heat map and the table of layers tell."""

from __future__ import annotations

from stabdiag.render.view import VIEWS, View

EXTENT = dict.fromkeys(("min", "max", "absmax", "mean", "rms"), "as the tensor")
OUTPUT = {**EXTENT, "zeros": "share of exact zeros", "norm": "norm"}
VIEWS.add(View("output", "Outputs", units=OUTPUT, told_elsewhere=True))
VIEWS.add(View("output_grad", "Gradients of outputs", units=OUTPUT, told_elsewhere=True))
VIEWS.add(View("weight", "Weights", units={"norm": "norm", "absmax": "as the tensor"}, told_elsewhere=True))
VIEWS.add(
    View(
        "grad",
        "Gradients",
        units={"norm": "norm", "clipped_norm": "norm", "absmax": "as the tensor", "dead": "share of rows"},
        told_elsewhere=True,
    )
)
VIEWS.add(
    View("update", "Updates", units={"norm": "norm", "ratio": "norm of update / weight"}, told_elsewhere=True)
)
VIEWS.add(
    View(
        "batch",
        "Batches",
        units={**EXTENT, "fingerprint": "integer, equal for equal batches"},
        first=("absmax", "rms", "mean"),
    )
)
