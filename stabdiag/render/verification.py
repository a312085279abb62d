"""The result of `stabdiag verify` on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stabdiag.core.verification import PLACEBO, UNCHANGED, Trial, Verification
from stabdiag.render.numbers import count, number, percent
from stabdiag.render.terminal import Lines, speakable

STYLE = {"verified": "bold green", "did not help": "yellow", "made it worse": "bold red", "not told": "dim"}


def render_verification(verification: Verification, console: Console) -> None:
    lines = Lines(console)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("replay", overflow="fold")
    for head in ("loss", "recovered", "s/step"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for trial in verification.trials:
        table.add_row(*(_cell(text, console) for text in _row(trial)))
    console.print(table)
    lines.blank()
    column = max(len(trial.id) for trial in verification.trials) + 2
    for trial in verification.trials:
        lines.item(trial.id, reason(trial), column=column)
    lines.blank()
    for sentence in sentences(verification):
        lines.item("", sentence)


def _cell(text: Text, console: Console) -> Text:
    return Text(speakable(text.plain, console.encoding), style=text.style)


def _row(trial: Trial) -> tuple[Text, ...]:
    level = number(trial.level) if trial.level is not None else "not finite" if trial.steps else "-"
    recovered = "-" if trial.recovery is None else percent(max(trial.recovery, -9.99))
    each = "-" if trial.step_time is None else number(trial.step_time)
    result = Text(trial.mark or trial.verdict, style=STYLE.get(trial.mark, ""))
    return Text(label(trial)), Text(level), Text(recovered), Text(each), result


def label(trial: Trial) -> str:
    """What was applied; `unchanged`, `placebo: lower-learning-rate=0.1`."""
    applied = [request for request in trial.apply if not request.startswith("early-stopping")]
    said = " ".join(applied)
    if trial.id in (UNCHANGED, PLACEBO):
        return f"{trial.id}: {said}" if said else trial.id
    return said


def reason(trial: Trial) -> str:
    """Why it is marked so, and what the interventions did."""
    acted = ", ".join(f"{action} {count(times, 'time')}" for action, times in trial.acted.items())
    told = trial.because or ", ".join(trial.findings) or "nothing abnormal"
    return f"{told}; {acted}" if acted else told


def sentences(verification: Verification) -> list[str]:
    """What the table is of, and what follows from it."""
    steps = count(verification.horizon, "step")
    told = [f"Each replay ran for {steps}; the loss is the median of its last tenth."]
    if verification.healthy is not None:
        fault = verification.fault
        start = "the worst finite loss" if fault is None else number(fault)
        told[0] += (
            f" Recovery is measured from {start} to {number(verification.healthy)}, {verification.against}."
        )
    if verification.same_until >= verification.horizon:
        told.append("The unchanged replay had the same losses as the run, to the bit.")
    elif verification.again:
        told.append(
            f"The losses of the unchanged replay part from those of the run at step "
            f"{count(verification.same_until)}: the script is not deterministic. The failure came again."
        )
    else:
        told.append(
            "The failure did not come again in the unchanged replay: the script is not deterministic, and "
            "nothing can be said of the fixes."
        )
    told += _conclusion(verification)
    if verification.untried:
        told.append(f"Not tried, as they need a change of the code: {', '.join(verification.untried)}.")
    return told


def _conclusion(verification: Verification) -> list[str]:
    if not verification.again:
        return []
    cures = [t.id for t in verification.trials if t.mark == "verified" and t.id != PLACEBO]
    placebo = verification.trial(PLACEBO)
    cured = f"Verified: {', '.join(cures)}." if cures else "None of the fixes that were tried cures it."
    if placebo is not None and placebo.mark == "verified":
        cured += " So does the placebo: a smaller step is enough, whatever the cause."
    return [cured]
