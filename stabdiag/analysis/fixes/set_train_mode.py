from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import listed
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("set-train-mode", title="Switch between training and evaluation mode where it belongs")
def set_train_mode(run: Run, finding: Finding) -> Change:
    """Calls `model.train()` before training steps, and `model.eval()` before evaluations only.

    It costs nothing. It worked when `mode.training` is 1 at every step, and `mode.evaluating` 0. The trainers
    of Hugging Face and Lightning do it by themselves, unless a callback or `training_step` calls `eval()`.
    """
    where = listed(finding.sites) if finding.sites and finding.sites != ("run",) else "the model"
    code = (
        "for epoch in range(epochs):\n"
        "    model.train()\n"
        "    train_one_epoch(model)\n"
        "    model.eval()\n"
        "    with torch.no_grad():\n"
        "        evaluate(model)"
    )
    if "evaluations" in finding.facts:
        return Change(f"model.eval() before each evaluation: {where} were in training mode there", code)
    return Change(
        f"model.train() before the training steps: {where} were in evaluation mode from step "
        f"{finding.onset_step} on",
        code,
    )
