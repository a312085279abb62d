from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import healthy_step
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("replay-step", title="Compute the step again and compare")
def replay_step(run: Run, finding: Finding) -> Change:
    """Repeats the step from the same weights and batch, on the same device and on another.

    It costs a few minutes. Equal results clear the hardware; a difference on one device only convicts
    it. It worked when the replayed step is ordinary: then restore the checkpoint and replace the device.
    """
    back = healthy_step(run, finding.onset_step)
    return Change(
        f"replay from a checkpoint at or before step {back} through step {finding.onset_step}, twice, and "
        "compare "
        "the gradients bit by bit",
        "torch.use_deterministic_algorithms(True)\n"
        "\n"
        "def gradients(model, inputs, targets):\n"
        "    model.zero_grad(set_to_none=True)\n"
        "    loss_function(model(inputs), targets).backward()\n"
        "    return [p.grad.clone() for p in model.parameters() if p.grad is not None]\n"
        "\n"
        "first, second = gradients(model, inputs, targets), gradients(model, inputs, targets)\n"
        "print(all(torch.equal(a, b) for a, b in zip(first, second)))",
    )
