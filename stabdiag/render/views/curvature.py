from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.panel import Panel, lines
from stabdiag.render.view import VIEWS, View


def _panels(run: Run, kind: str) -> Iterator[Panel | None]:
    largest = ["lambda_max_preconditioned", "lambda_max", "limit"]
    yield lines(
        run,
        kind,
        largest,
        "Largest eigenvalue of the Hessian, plain and scaled by the optimizer; dashed: stability limit",
        "eigenvalue",
        log=True,
        dashed="limit",
    )
    yield lines(
        run,
        kind,
        ["sharpness_ratio"],
        "Eigenvalue over limit: above 1 a quadratic loss would diverge",
        "ratio",
        level=(1.0, "limit"),
    )


VIEWS.add(
    View(
        "curvature",
        "Curvature",
        "Of the batch at hand.",
        {
            "lambda_max": "loss / parameter²",
            "lambda_min": "loss / parameter²",
            "lambda_max_preconditioned": "1 / learning rate",
            "trace": "loss / parameter²",
            "limit": "1 / learning rate",
            "sharpness_ratio": "ratio to the limit",
            "residual": "share of the eigenvalue",
        },
        _panels,
    )
)
