from __future__ import annotations

from stabdiag.render.view import VIEWS, View

VIEWS.add(
    View(
        "router",
        "Routers",
        "How evenly a mixture of experts uses its experts.",
        {
            "entropy": "nats",
            "load": "share of choices",
            "max_load": "share of choices",
            "min_load": "share of choices",
        },
    )
)
