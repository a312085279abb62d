from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

UNITS = {
    "entropy": "nats",
    "load": "share of choices",
    "max_load": "share of choices",
    "min_load": "share of choices",
}
KINDS.add(Kind("router", "Routers", UNITS, "How evenly a mixture of experts uses its experts."))
