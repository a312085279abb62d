"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from stabdiag.core.diagnosis import Diagnosis, FixAdvice, Incident
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.cost import cost
from stabdiag.render.curve import loss_curve
from stabdiag.render.numbers import count, percent
from stabdiag.render.sparkline import sparkline
from stabdiag.render.terminal import Lines

BAD, DUBIOUS, GOOD, NEUTRAL = "bold red", "bold yellow", "bold green", "bold blue"
VERDICT_STYLE = {"stable": GOOD, "at-risk": DUBIOUS, "unstable": BAD, "failed": BAD}
SEVERITY_STYLE = {"critical": BAD, "warning": DUBIOUS, "info": NEUTRAL}
COLUMN = 13
FIXES = 2


def render_text(
    run: Run,
    diagnosis: Diagnosis,
    console: Console,
    *,
    verbose: bool = False,
    following: Sequence[str] | None = None,
) -> None:
    """Writes the summary to `console`; `verbose` adds the other fixes, code, and reasons of skips.
    `following` are the commands to type next, without them those that follow a report."""
    lines = Lines(console)
    lines.item("", describe.verdict_sentence(run, diagnosis), style=VERDICT_STYLE.get(diagnosis.verdict, ""))
    lines.blank()
    _facts(lines, run, diagnosis)
    for rank, incident in enumerate(diagnosis.incidents, 1):
        lines.blank()
        _incident(lines, run, diagnosis, rank, incident, verbose)
    _others(lines, diagnosis)
    _unobserved(lines, run, diagnosis, verbose)
    for command in describe.next_commands(run, diagnosis)[1:] if following is None else following:
        lines.blank()
        lines.item("next", command, indent=2, column=COLUMN, style="cyan")


def _facts(lines: Lines, run: Run, diagnosis: Diagnosis) -> None:
    lines.item("run", ", ".join(describe.run_facts(run, diagnosis)), indent=2, column=COLUMN)
    if cost(run, diagnosis).words:
        lines.item("recorder", cost(run, diagnosis).words, indent=2, column=COLUMN)
    if describe.acted(run):
        lines.item("acted", describe.acted(run), indent=2, column=COLUMN)
    ended = describe.ending(run, diagnosis)
    if ended:
        lines.item("ended", f"{ended}; {describe.before_the_end(diagnosis)}", indent=2, column=COLUMN)
    room = min(lines.console.width - COLUMN, 60)
    drawn = sparkline(loss_curve(run), room, ascii_only=not lines.says_unicode)
    if drawn:
        lines.item("loss", drawn, indent=2, column=COLUMN)
    lines.item("" if drawn else "loss", describe.loss_facts(run), indent=2, column=COLUMN)


def _incident(
    lines: Lines, run: Run, diagnosis: Diagnosis, rank: int, incident: Incident, verbose: bool
) -> None:
    root = diagnosis.findings[incident.root]
    severity = str(root.severity)
    label = f"{rank} {severity.upper()}"
    title = ", ".join(
        filter(None, (describe.signature_title(root.signature), describe.graver(diagnosis, incident)))
    )
    lines.item(label, title, column=COLUMN, style="bold", label_style=SEVERITY_STYLE[severity])
    _item(lines, "what", root.message)
    if describe.place(root):
        _item(lines, "where", ", ".join(root.sites[:4]) + (" …" if len(root.sites) > 4 else ""))
    _item(lines, "when", f"{describe.span(root)} ({percent(root.confidence)} sure)")
    _item(lines, "measured", describe.measure(root))
    if incident.first_mover:
        _item(lines, "first move", describe.first_moved(incident.first_mover))
    if incident.culprit:
        _item(lines, "culprit", describe.blamed(incident.culprit))
    if incident.cause:
        _item(lines, "cause", describe.cause_line(incident.cause))
    elif root.severity:
        _item(lines, "cause", describe.unknown_cause(root))
    for i, fix in enumerate(incident.fixes if verbose else incident.fixes[:FIXES]):
        _fix(lines, "fix" if i == 0 else "or", fix, verbose)
    for i, finding in enumerate(describe.symptoms(diagnosis, incident)):
        _item(lines, "led to" if i == 0 else "", f"{finding.severity}: {_short(finding)}")
    _item(lines, "kept", describe.kept_steps(run, incident))


def _item(lines: Lines, label: str, text: str) -> None:
    if text:
        lines.item(label, text, indent=4, column=COLUMN + 2)


def _fix(lines: Lines, label: str, fix: FixAdvice, verbose: bool) -> None:
    mark = describe.mark_words(fix)
    _item(lines, label, (fix.change or fix.title) + (f" ({mark})" if mark else ""))
    if verbose and fix.code:
        lines.verbatim(fix.code, indent=COLUMN + 4)


def _short(finding: Finding) -> str:
    return f"{describe.titled(finding)}, {describe.span(finding)}"


def _others(lines: Lines, diagnosis: Diagnosis) -> None:
    others = describe.others(diagnosis)
    if others:
        _heading(lines, "Also seen")
    for finding in others:
        lines.item(str(finding.severity), f"{_short(finding)}: {finding.message}", indent=2, column=COLUMN)


def _unobserved(lines: Lines, run: Run, diagnosis: Diagnosis, verbose: bool) -> None:
    """What limits the diagnosis: places out of sight, files that could not be read, signatures skipped."""
    unseen = describe.unobserved(run)
    if unseen or run.notes or diagnosis.skipped:
        _heading(lines, "Not observed")
    for what, because in unseen:
        lines.item("", f"{what}: {because}", indent=2)
    for note in run.notes:
        lines.item("", note, indent=2)
    if verbose:
        for skipped in diagnosis.skipped:
            lines.item("", f"{skipped.signature} skipped: {skipped.because}", indent=2)
    elif diagnosis.skipped:
        names = ", ".join(skipped.signature for skipped in diagnosis.skipped)
        lines.item("", f"{count(len(diagnosis.skipped), 'signature')} skipped: {names}", indent=2)


def _heading(lines: Lines, text: str) -> None:
    lines.blank()
    lines.item("", text, style="bold")
