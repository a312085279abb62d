from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("add-warmup", title="Warm the learning rate up, longer")
def add_warmup(run: Run, finding: Finding) -> Change:
    """Starts with small updates, while the curvature is high and Adam's moments are noise.

    It costs the progress of half the warm-up. It worked when the update ratio peaks below 0.03 during
    the first hundreds of steps and the loss passes the end of the warm-up without a rise.
    """
    plan = schedule(run)
    steps = max(100, 3 * plan.warmup, 2 * finding.onset_step if plan.warmup else 0)
    steps = min(round(steps, -2) or 100, 10_000)
    now = f"{plan.warmup} steps of warm-up" if plan.warmup else "no warm-up"
    return Change(
        f"{now} → {steps} steps: it began at step {finding.onset_step}",
        f"warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters={steps})\n"
        "# once a step, after optimizer.step():\n"
        "warmup.step()",
        {"warmup_steps": float(steps)},
    )
