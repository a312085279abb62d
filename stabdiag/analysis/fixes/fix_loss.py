from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("fix-loss", title="Give the loss what it expects")
def fix_loss(run: Run, finding: Finding) -> Change | None:
    """Passes raw logits to the cross-entropy, which has the softmax in itself, and log-probabilities to
    `nll_loss`.

    It costs nothing. It worked when the loss of a classifier starts near ln(classes) and falls below
    1 on an easy batch.
    """
    function = str(run.fact("loss", "function", ""))
    if "nll" in function.lower():
        return Change(
            f"log-probabilities into {function}",
            "loss = torch.nn.functional.nll_loss(torch.log_softmax(logits, dim=-1), targets)",
        )
    if "cross" in function.lower():
        return Change(
            f"raw logits into {function}: no softmax, sigmoid or log_softmax before it",
            "logits = model(inputs)  # without a softmax at the end\n"
            "loss = torch.nn.functional.cross_entropy(logits, targets)",
        )
    return None
