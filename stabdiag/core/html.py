"""Findings, incidents and diagnoses as a few lines of HTML: what a notebook shows of them.

No script and no style sheet, so that every frontend shows it; colours are legible on white and on black.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stabdiag.core.diagnosis import Culprit, Diagnosis, FixAdvice, Incident
    from stabdiag.core.finding import Finding

TITLES: dict[tuple[str, str], str] = {}
"""What a `signature`, a `cause` or a `fix` of that id is called: the analysis declares them."""

COLOURS = {"critical": "#d1242f", "warning": "#b58100", "info": "#6e7781"}
MOST_CHARACTERS = 500
MOST_SITES = 4


def shown(text: object) -> str:
    """`text` as it may stand in HTML: escaped, on one line, without control and direction characters,
    and not without end."""
    line = " ".join(str(text)[: MOST_CHARACTERS + 1].split())
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return escape(printable if len(line) <= MOST_CHARACTERS else f"{printable[:MOST_CHARACTERS]}…")


def _title(what: str, id: str) -> str:
    return shown(TITLES.get((what, id), id.replace("-", " ")))


def finding_html(finding: Finding) -> str:
    sure = f"{finding.confidence:.0%} sure"
    head = (
        f"{_badge(str(finding.severity))} <b>{_title('signature', finding.signature)}</b>{_places(finding)}"
    )
    since = shown(_steps(finding.onset_step, finding.last_step))
    because = [
        f"{_title('cause', c.id)} ({c.confidence:.0%}): {shown(c.because)}" for c in finding.causes[:1]
    ]
    return _card(
        str(finding.severity),
        f"{head}, {since}, {sure}",
        shown(finding.message),
        *_labelled("cause", because),
        *_labelled(
            "fixes", ["; ".join(_title("fix", fix) for fix in finding.fixes)] if finding.fixes else []
        ),
    )


def incident_html(incident: Incident, root: Finding | None = None) -> str:
    """`root` is the finding that explains the others; without it only what the incident itself knows."""
    since = f"since step {incident.onset_step:,}"
    what = f" <b>{_title('signature', root.signature)}</b>{_places(root)}," if root else ""
    worse = f", {told}" if root and (told := incident.consequences(root)) else ""
    mover, culprit, cause = incident.first_mover, incident.culprit, incident.cause
    moved = [f"{shown(mover.series)} at {shown(mover.site)}, step {mover.step:,}"] if mover else []
    blamed = _blamed(culprit) if culprit else []
    because = (
        [f"{_title('cause', cause.id)} ({cause.confidence:.0%}): {shown(cause.because)}"] if cause else []
    )
    return _card(
        str(incident.severity),
        f"{_badge(str(root.severity if root else incident.severity))}{what} {since}{worse}",
        shown(root.message) if root else "",
        *_labelled("moved first", moved),
        *_labelled("culprit", blamed),
        *_labelled("cause", because),
        *(_advice(fix) for fix in incident.fixes),
    )


def diagnosis_html(diagnosis: Diagnosis) -> str:
    verdict = shown(diagnosis.verdict.replace("-", " ").capitalize())
    steps = diagnosis.run.get("steps")
    after = f" after {int(steps):,} steps" if steps is not None else ""
    cards = [incident_html(i, diagnosis.findings[i.root]) for i in diagnosis.incidents]
    told = {n for i in diagnosis.incidents for n in (i.root, *i.findings)}
    rest = [finding_html(f) for n, f in enumerate(diagnosis.findings) if n not in told]
    return f"<div><p><b>{verdict}</b>{after}</p>{''.join(cards + rest)}</div>"


def findings_html(findings: Iterable[Finding]) -> str:
    return f"<div>{''.join(map(finding_html, findings)) or '<p>No findings.</p>'}</div>"


def _card(severity: str, *lines: str) -> str:
    colour = COLOURS[severity]
    body = "".join(f"<div>{line}</div>" for line in lines if line)
    style = f"border-left:4px solid {colour};padding:2px 0 2px 12px;margin:8px 0;overflow-wrap:anywhere"
    return f'<div style="{style}">{body}</div>'


def _badge(severity: str) -> str:
    return f'<b style="color:{COLOURS[severity]}">{severity}</b>'


def _places(finding: Finding) -> str:
    sites = [site for site in finding.sites if site != "run"]
    more = f" and {len(sites) - MOST_SITES:,} more" if len(sites) > MOST_SITES else ""
    named = ", ".join(f"<code>{shown(site)}</code>" for site in sites[:MOST_SITES])
    return f" at {named}{more}" if sites else ""


def _blamed(culprit: Culprit) -> list[str]:
    found = []
    if culprit.parameter or culprit.module:
        file, _, line = culprit.source.rpartition(":")
        source = f" ({shown(PurePath(*PurePath(file).parts[-2:]))}:{shown(line)})" if file else ""
        found.append(f"<code>{shown(culprit.parameter or culprit.module)}</code>{source}")
    if culprit.batch:
        known = culprit.batch.fingerprint
        fingerprint = f", fingerprint {known:06x}" if known is not None else ""
        found.append(f"the batch of step {culprit.batch.step:,}{fingerprint}")
    return found


def _steps(first: int, last: int) -> str:
    return f"steps {first:,} to {last:,}" if last > first else f"step {first:,}"


def _labelled(label: str, values: list[str]) -> list[str]:
    return [f'<span style="opacity:.7">{label}</span> {", ".join(values)}'] if values else []


def _advice(fix: FixAdvice) -> str:
    change = f": {shown(fix.change)}" if fix.change else ""
    code = f'<pre style="margin:4px 0 4px 1em;overflow-x:auto">{_block(fix.code)}</pre>' if fix.code else ""
    return f'<span style="opacity:.7">fix</span> <b>{shown(fix.title)}</b>{change}{code}'


def _block(text: str) -> str:
    bodies = [(line, line.lstrip()) for line in text.splitlines()]
    return "\n".join(" " * (len(line) - len(body)) + shown(body) for line, body in bodies)
