from __future__ import annotations

import numpy as np

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import NEVER_NEGATIVE
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("fix-loss", title="Give the loss what it expects")
def fix_loss(run: Run, finding: Finding) -> Change | None:
    """Passes raw logits to the cross-entropy, which has the softmax in itself, and log-probabilities to
    `nll_loss`; minimizes it, where its negative was minimized.

    It costs nothing. It worked when the loss of a classifier starts near ln(classes) and falls below
    1 on an easy batch.
    """
    function = str(run.fact("loss", "function", ""))
    loss = history(run, "run.loss").within(finding.onset_step, finding.last_step).finite().values
    if function in NEVER_NEGATIVE and len(loss) and float(np.median(loss)) < 0:
        return Change(
            f"minimize the {function}, not its negative; into nll_loss go log-probabilities",
            "loss = criterion(outputs, targets)  # without a minus\nloss.backward()",
        )
    if function == "cross-entropy":
        return Change(
            "raw logits into the cross-entropy: no softmax, sigmoid or log_softmax before it",
            "logits = model(inputs)  # without a softmax at the end\n"
            "loss = torch.nn.functional.cross_entropy(logits, targets)",
        )
    if function == "binary-cross-entropy" and run.fact("loss", "logits"):
        return Change(
            "raw logits into binary_cross_entropy_with_logits, which takes the sigmoid itself",
            "logits = model(inputs)  # without a sigmoid at the end\n"
            "loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)",
        )
    return None
