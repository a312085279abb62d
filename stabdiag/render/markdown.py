"""The report as GitHub-flavoured markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.cost import cost
from stabdiag.render.curve import loss_curve
from stabdiag.render.numbers import percent
from stabdiag.render.sparkline import sparkline

SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&@-])")


def render_markdown(run: Run, diagnosis: Diagnosis) -> str:
    return "\n".join(_lines(run, diagnosis)) + "\n"


def escaped(text: str) -> str:
    """`text` itself, on one line: no markup, no HTML, no mention, no link."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("://", ":&#47;&#47;")


def code(text: str) -> str:
    """A code span that holds `text`, backticks and all; also inside a table."""
    line = " ".join(text.split()).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _block(text: str) -> list[str]:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return [f"   {line}" for line in (f"{fence}python", *text.splitlines(), fence)]


def _lines(run: Run, diagnosis: Diagnosis) -> Iterator[str]:
    yield f"## {escaped(describe.verdict_sentence(run, diagnosis))}"
    yield ""
    yield escaped(", ".join(describe.run_facts(run, diagnosis)))
    if cost(run, diagnosis).words:
        yield from ("", escaped(f"Recorder: {cost(run, diagnosis).words}"))
    drawn = sparkline(loss_curve(run))
    yield from ("", f"Loss {code(drawn) + ' ' if drawn else ''}{escaped(describe.loss_facts(run))}")
    if describe.acted(run):
        yield from ("", escaped(f"Interventions: {describe.acted(run)}"))
    ended = describe.ending(run, diagnosis)
    if ended:
        yield from ("", escaped(f"{ended[:1].upper()}{ended[1:]}; {describe.before_the_end(diagnosis)}."))
    for rank, incident in enumerate(diagnosis.incidents, 1):
        yield from _incident(run, diagnosis, rank, incident)
    yield from _section("Also seen", [_short(finding) for finding in describe.others(diagnosis)])
    unseen = [f"{code(item.what)}: {escaped(item.because)}" for item in describe.unobserved(run)]
    notes = [escaped(note) for note in run.notes]
    skipped = [f"{code(s.signature)} not evaluated: {escaped(s.because)}" for s in diagnosis.skipped]
    yield from _section("Not observed", [*unseen, *notes, *skipped])
    yield from _section("Next", [code(command) for command in describe.next_commands(run, diagnosis)])


def _incident(run: Run, diagnosis: Diagnosis, rank: int, incident: Incident) -> Iterator[str]:
    root = diagnosis.findings[incident.root]
    severity = ", ".join(filter(None, (str(root.severity), describe.graver(diagnosis, incident))))
    yield from (
        "",
        f"### {rank}. {escaped(describe.signature_title(root.signature))} ({severity})",
        "",
    )
    yield from (escaped(root.message), "")
    yield from ("| | |", "|---|---|", *_facts(root, incident))
    if describe.kept_steps(run, incident):
        yield f"| kept | {escaped(describe.kept_steps(run, incident))} |"
    if incident.fixes:
        yield from ("", "**What to change**", "")
    for i, fix in enumerate(incident.fixes, 1):
        mark = describe.mark_words(fix)
        told = f"{i}. **{escaped(fix.title)}**" + (f" ({escaped(mark)})" if mark else "")
        yield told + (f": {escaped(fix.change)}" if fix.change else "")
        if fix.code:
            yield from ("", *_block(fix.code), "")
    symptoms = describe.symptoms(diagnosis, incident)
    if symptoms:
        yield from ("", "**What followed from it**", "", *(f"- {_short(finding)}" for finding in symptoms))


def _facts(root: Finding, incident: Incident) -> Iterator[str]:
    if describe.place(root):
        more = f" and {len(root.sites) - 6} more" if len(root.sites) > 6 else ""
        yield f"| where | {', '.join(code(site) for site in root.sites[:6])}{more} |"
    yield f"| when | {describe.span(root)} |"
    yield f"| sure | {percent(root.confidence)} |"
    if describe.measure(root):
        yield f"| measured | {describe.measure(root)} |"
    if incident.first_mover:
        yield f"| moved first | {escaped(describe.first_moved(incident.first_mover))} |"
    if incident.culprit:
        yield f"| culprit | {escaped(describe.blamed(incident.culprit))} |"
    if incident.cause:
        yield f"| likely cause | {escaped(describe.cause_line(incident.cause))} |"
    elif root.severity:
        yield f"| likely cause | {escaped(describe.unknown_cause(root))} |"


def _short(finding: Finding) -> str:
    where = f", in {code(describe.place(finding))}" if describe.place(finding) else ""
    head = f"{finding.severity}: {escaped(describe.signature_title(finding.signature))}"
    return f"{head}{where}, {describe.span(finding)}. {escaped(finding.message)}"


def _section(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield from ("", f"### {title}", "", *(f"- {item}" for item in items))
