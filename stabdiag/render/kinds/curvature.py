from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

UNITS = {
    "lambda_max": "loss / parameter²",
    "lambda_min": "loss / parameter²",
    "lambda_max_preconditioned": "1 / learning rate",
    "trace": "loss / parameter²",
    "limit": "1 / learning rate",
    "sharpness_ratio": "ratio to the limit",
    "residual": "share of the eigenvalue",
}
KINDS.add(Kind("curvature", "Curvature", UNITS, "Of the batch at hand."))
