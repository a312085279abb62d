from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.panel import Panel, heat
from stabdiag.render.view import VIEWS, View


def _panels(run: Run, kind: str) -> Iterator[Panel | None]:
    yield heat(run, "optimizer.rms", "RMS of gradient over √v̂: far above 1 the second moment is stale")
    yield heat(run, "optimizer.eps_share", "Share of coordinates whose √v̂ is below eps")
    if "optimizer.rms" not in run:
        yield heat(run, "optimizer.step", "RMS of the update over the learning rate")
        yield heat(run, "optimizer.momentum", "Norm of the momentum")


VIEWS.add(
    View(
        "optimizer",
        "Optimizer",
        "By parameter.",
        {
            "rms": "RMS of g / √v̂",
            "eps_share": "share of coordinates",
            "step": "RMS of update / learning rate",
            "cosine": "cosine, gradient to first moment",
            "momentum": "norm",
        },
        _panels,
    )
)
