from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("early-stopping", title="Keep the best checkpoint and stop")
def early_stopping(run: Run, finding: Finding) -> Change:
    """Saves the model at each best evaluation, and ends training when some have passed without a better one.

    It costs a file, and what a second descent might have brought. It worked when the kept model's evaluation
    is the lowest of the run. In the Hugging Face Trainer: `load_best_model_at_end=True`,
    `metric_for_best_model="eval_loss"` and `EarlyStoppingCallback(early_stopping_patience=3)`; in Lightning:
    `EarlyStopping("val_loss", patience=3)` and `ModelCheckpoint(monitor="val_loss")`.
    """
    facts = finding.facts
    step = facts.get("best_step", float(finding.onset_step))
    told = f"stop after 3 evaluations without a better one, and keep that of step {step:.0f}"
    if "best" in facts:
        told += f" ({figure(facts['best'])}; it ended at {figure(facts['end'])})"
    return Change(
        f"{told}; Hugging Face: load_best_model_at_end=True with EarlyStoppingCallback(3); Lightning: "
        'EarlyStopping("val_loss", patience=3)',
        "if evaluation < best:\n"
        "    best, waited = evaluation, 0\n"
        '    torch.save(model.state_dict(), "best.pt")\n'
        "else:\n"
        "    waited += 1\n"
        "if waited == 3:\n"
        '    model.load_state_dict(torch.load("best.pt"))\n'
        "    training = False",
        {"stop_at": step},
    )
