from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

UNITS = {
    "rms": "RMS of g / √v̂",
    "eps_share": "share of coordinates",
    "step": "RMS of update / learning rate",
    "cosine": "cosine, gradient to first moment",
    "momentum": "norm",
}
KINDS.add(Kind("optimizer", "Optimizer", UNITS, "By parameter."))
KINDS.add(
    Kind("side", "Sides", {"loss": "loss", "grad_norm": "norm"}, "Optimizers that train against each other.")
)
