from __future__ import annotations

from stabdiag.render.view import VIEWS, View

VIEWS.add(
    View(
        "router",
        "Routers",
        "How evenly a mixture of experts uses its experts.",
        {
            "entropy": "nats",
            "load": "share of tokens",
            "max_load": "share of tokens",
            "min_load": "share of tokens",
        },
    )
)
