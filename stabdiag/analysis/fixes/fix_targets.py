from __future__ import annotations

import math

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import BINARY
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("fix-targets", title="Check that targets belong to inputs")
def fix_targets(run: Run, finding: Finding) -> Change:
    """Overfits one small batch with a fresh model: what fails here can never learn from all the data.

    It costs a minute. Where it fails, look at decoded pairs of input and target: a shuffle of one of
    the two, an off-by-one, an inverted mask. It worked when the loss of the one batch falls below a
    tenth of its start.
    Where training succeeds and no evaluation does, it asks the reverse: whether the model repeats targets
    that do not belong to its inputs, because it is given them.
    """
    if "impossible" in finding.facts and run.fact("loss", "function") == BINARY:
        return Change(
            "scale the targets to 0 to 1: a binary cross-entropy is negative for none of these",
            "targets = targets / 255.0  # where they are pixels\n"
            "assert 0.0 <= targets.min() and targets.max() <= 1.0",
        )
    if finding.signature == "overfitting":
        return Change(
            "give the model targets of other samples in place of its own wherever training hands it any, and "
            "see whether it answers with those; shift them by one, or mask them, where it does",
            "others = targets[torch.randperm(len(targets))]\n"
            "answers = model(inputs, others).argmax(-1)  # called as in training\n"
            "print((answers == others).float().mean())  # far above chance: it reads them",
        )
    level, classes = history(run, "run.loss").at(finding.last_step), run.fact("loss", "classes")
    told = f"the loss stands at {figure(level)}" if level is not None else "the loss stands still"
    if isinstance(classes, int) and classes > 1:
        told += f", and answering without looking costs {figure(math.log(classes))}"
    return Change(
        f"overfit one batch of 8 and compare its inputs with its targets: {told}",
        "inputs, targets = next(iter(loader))\n"
        "inputs, targets = inputs[:8], targets[:8]\n"
        "for _ in range(200):\n"
        "    optimizer.zero_grad(set_to_none=True)\n"
        "    loss = loss_function(model(inputs), targets)\n"
        "    loss.backward()\n"
        "    optimizer.step()\n"
        "print(loss.item())",
    )
