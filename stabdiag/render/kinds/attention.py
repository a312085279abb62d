from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

UNITS = {
    "entropy": "nats",
    "entropy_ratio": "share of ln(visible keys)",
    "entropy_rest": "nats, without the first key",
    "max_logit": "logit",
    "max_logit_upper": "logit, upper bound",
    "exact": "1 exact, 0 of a sample",
}
KINDS.add(Kind("attention", "Attention", UNITS))
