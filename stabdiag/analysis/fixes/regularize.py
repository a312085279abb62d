from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.prescription import optimizer_name
from stabdiag.analysis.step_size import weight_decay
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("regularize", title="Make it harder to learn by heart")
def regularize(run: Run, finding: Finding) -> Change:
    """Weight decay, dropout and label smoothing: each takes from the model what only single samples teach.

    It costs some training loss, and a try or two for the strength. It worked when evaluations turn later, at
    a lower value. In the Hugging Face Trainer: `weight_decay=0.1`, `label_smoothing_factor=0.1`.
    """
    now = weight_decay(run)
    decay = max(0.1, min(3 * now, 0.3)) if now is not None else 0.1
    return Change(
        f"weight decay {'unknown' if now is None else f'{now:g}'} → {decay:g}, dropout 0.1 and label "
        "smoothing "
        f"0.1 (evaluations turned at step {finding.onset_step}); Hugging Face: weight_decay={decay:g}, "
        "label_smoothing_factor=0.1",
        f"optimizer = torch.optim.{optimizer_name(run)}(model.parameters(), lr=lr, weight_decay={decay:g})\n"
        "loss = torch.nn.functional.cross_entropy(model(inputs), targets, label_smoothing=0.1)",
        {"weight_decay": decay},
    )
