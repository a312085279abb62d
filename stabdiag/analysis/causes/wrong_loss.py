from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import Case, figure
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import BINARY, NEVER_NEGATIVE
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause("wrong-loss", title="The loss does not fit the model's output", fixes=("fix-loss",), of_the_task=True)
def wrong_loss(run: Run, finding: Finding) -> Weight | None:
    """The loss function expects something else than the model gives.

    `cross_entropy` wants raw logits: after a softmax of the model's own its loss cannot fall below
    ln(1 + (C - 1)/e) for C classes and its gradients are tiny. `binary_cross_entropy_with_logits` after a
    sigmoid of the model's own is no better than ln 2 for the label 0, whatever the model does. `nll_loss`
    wants log-probabilities: given anything else its loss is negative and falls for ever. All show in the
    range of the last output.

    Reference: https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """
    case, function = Case(), str(run.fact("loss", "function", ""))
    low, high = _last_output(run)
    if function == "cross-entropy":
        if finding.facts.get("probabilities"):
            case.speaks_for(0.9, "the logits of the cross-entropy add up to 1: a softmax was taken already")
        elif low >= 0 and high <= 1:
            case.speaks_for(
                0.85,
                f"the loss is a cross-entropy, which wants raw logits, and the model's last output lies "
                f"within {figure(low)} to {figure(high)}: probabilities",
            )
        elif np.isfinite(low) and low < 0 and high <= 1e-6:
            case.speaks_for(0.2, "the model's last output is never positive, as log-probabilities are")
    if function == BINARY and run.fact("loss", "logits") and low >= 0 and high <= 1:
        case.speaks_for(
            0.9,
            "the loss is a binary cross-entropy that takes the sigmoid itself, and the model's last output "
            f"lies within {figure(low)} to {figure(high)} at every record: a sigmoid was taken already",
        )
    if finding.signature == "loss-plateau" and finding.facts.get("constant"):
        case.speaks_for(
            0.85,
            f"the loss was the same number at every step; {_width(run)}",
        )
    loss = history(run, "run.loss").within(finding.onset_step, finding.last_step).finite().values
    if len(loss) and float(np.median(loss)) < 0 and function in NEVER_NEGATIVE:
        case.speaks_for(
            0.6 if function == BINARY else 0.85,
            f"the loss is negative ({figure(float(np.median(loss)))}), which no {function} can be: "
            "its sign is wrong, or its input is not what it wants",
        )
    return case.weight()


def _width(run: Run) -> str:
    """How many classes a cross-entropy chooses among, if it is one."""
    classes = run.fact("loss", "classes")
    return "a cross-entropy over one class is always 0" if classes == 1 else "nothing of the model is in it"


def _last_output(run: Run) -> tuple[float, float]:
    """Smallest and largest value that the last module of the forward pass ever gave; NaN if unknown."""
    if "output.min" not in run or "output.max" not in run:
        return np.nan, np.nan
    low, high = run.table("output.min"), run.table("output.max")
    last = max(range(len(low.sites)), key=lambda i: low.sites[i].order, default=None)
    if last is None:
        return np.nan, np.nan
    lows, highs = low.values[:, last], high.values[:, last]
    lows, highs = lows[np.isfinite(lows)], highs[np.isfinite(highs)]
    return (float(lows.min()), float(highs.max())) if len(lows) and len(highs) else (np.nan, np.nan)
