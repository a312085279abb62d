from __future__ import annotations

from stabdiag.render.kind import KINDS, OWN, Kind

UNITS = {
    "kurtosis": "ratio of moments, 3 of a normal distribution",
    "outliers": "share of values",
    "underflow_*": "share of values",
    "overflow_*": "share of values",
    "q[0-9]*": OWN,
}
KINDS.add(Kind("distribution", "Distribution of outputs", UNITS))
KINDS.add(Kind("distribution_grad", "Distribution of their gradients", UNITS))
