from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

UNITS = {
    "loss": "loss",
    "lr": "learning rate",
    "*grad_norm": "norm",
    "loss_scale": "factor",
    "skipped": "1 where withheld",
    **dict.fromkeys(("micro_batches", "samples", "tokens"), "a step"),
    "*_time": "s",
    "overhead": "s",
    **dict.fromkeys(("memory", "reserved", "resident", "rss"), "MiB"),
    "tier": "0 none to 4 rare",
    "grad_carryover": "share left from the step before",
    "grad_cosine": "cosine with the gradient of the step before",
    "optimizer_age": "steps that the optimizer's state has seen",
}
KINDS.add(Kind("run", "The run", UNITS))
