from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.render.panel import Panel, lines
from stabdiag.render.stack import Part, stack
from stabdiag.render.view import VIEWS, View

PARTS = (
    Part("data_time", "data"),
    Part("forward_time", "forward"),
    Part("backward_time", "backward"),
    Part("optimizer_time", "optimizer"),
)


def _panels(run: Run, kind: str) -> Iterator[Panel | None]:
    yield stack(
        run,
        PARTS,
        "Time of a step (s)",
        "s",
        total=Part("step_time", "other"),
        over=Part("overhead", "recorder"),
    )
    memory = ["memory", "reserved", "resident", "rss"]
    yield lines(run, kind, memory, "Memory (MiB)", "MiB", sites=("run",))
    norms = ["grad_norm", "clipped_grad_norm"]
    yield lines(
        run, kind, norms, "Norm of the gradient, before and after clipping", "norm", sites=("run",), log=True
    )
    yield lines(run, kind, ["loss_scale"], "Scale of the loss", "factor", sites=("run",), log=True)


SECONDS = ("step_time", "data_time", "forward_time", "backward_time", "optimizer_time", "overhead")
MEBIBYTES = ("memory", "reserved", "resident", "rss")
COUNTS = ("micro_batches", "samples", "tokens")
VIEWS.add(
    View(
        "run",
        "Time, memory and gradient",
        "",
        {
            **dict.fromkeys(SECONDS, "s"),
            **dict.fromkeys(MEBIBYTES, "MiB"),
            **dict.fromkeys(COUNTS, "a step"),
            "loss": "loss",
            "lr": "learning rate",
            "grad_norm": "norm",
            "clipped_grad_norm": "norm",
            "loss_scale": "factor",
            "skipped": "1 where withheld",
            "tier": "0 none to 4 rare",
            "grad_carryover": "share left from the step before",
            "grad_cosine": "cosine with the gradient of the step before",
            "optimizer_age": "steps that the optimizer's state has seen",
        },
        _panels,
    )
)
