from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import healthy_step, lowered_rate
from stabdiag.analysis.step_size import HEALTHY_RATIO, ratio_near
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("rollback", title="Go back to a checkpoint from before it began, and go on more carefully")
def rollback(run: Run, finding: Finding) -> Change | None:
    """Restores weights, optimizer and scheduler from before the onset, with a lower rate or other data.

    It costs the steps since the checkpoint. Lowering the rate alone does not bring blown-up weights
    back: in a small transformer it ended at 4.30 nat, with a rollback at 3.54, undisturbed at 3.18. It
    worked when the run passes the step at which it broke.
    """
    back = healthy_step(run, finding.onset_step)
    if back == 0:
        return None
    code = (
        f'checkpoint = torch.load("checkpoint.pt")  # of step {back} or earlier\n'
        'model.load_state_dict(checkpoint["model"])\n'
        'optimizer.load_state_dict(checkpoint["optimizer"])'
    )
    text = f"resume from the last checkpoint at or before step {back} (it began at step {finding.onset_step})"
    near = ratio_near(run, finding.onset_step)
    if near is None or near[1] <= HEALTHY_RATIO:
        return Change(
            f"{text}, past the batches up to step {finding.onset_step}", code, {"rollback_to": float(back)}
        )
    factor, _ = lowered_rate(run, finding.onset_step)
    return Change(
        f"{text}, with the learning rate times {figure(factor)}",
        f'{code}\nfor group in optimizer.param_groups:\n    group["lr"] *= {factor:.2g}',
        {"rollback_to": float(back), "lr_scale": factor},
    )
