from __future__ import annotations

from stabdiag.render.kind import KINDS, OWN, Kind

EXTENT = dict.fromkeys(("min", "max", "absmax", "mean", "rms"), OWN)
OUTPUT = {**EXTENT, "zeros": "share of exact zeros"}
GRADIENT = {
    "norm": "norm",
    "clipped_norm": "norm",
    "absmax": OWN,
    "dead": "share of rows",
}
UPDATE = {
    "norm": "norm",
    "ratio": "norm of update / weight",
    "unchanged": "share of coordinates",
}
KINDS.add(Kind("output", "Outputs", OUTPUT))
KINDS.add(Kind("output_grad", "Gradients of outputs", {**OUTPUT, "norm": "norm"}))
KINDS.add(Kind("initial", "Weights before the first step", {**EXTENT, "zeros": "share of exact zeros"}))
KINDS.add(Kind("weight", "Weights", {"norm": "norm", "absmax": OWN}))
KINDS.add(Kind("grad", "Gradients", GRADIENT))
KINDS.add(Kind("update", "Updates", UPDATE))
