"""The lines of `stabdiag run`: an alert while it trains, and those at its end."""

from __future__ import annotations

import textwrap
from pathlib import Path

from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.cost import cost
from stabdiag.render.curve import loss_curve
from stabdiag.render.numbers import count, size
from stabdiag.render.sparkline import sparkline
from stabdiag.render.terminal import shortened, speakable

WORST = 3


def summary_lines(run: Run, diagnosis: Diagnosis, *, width: int = 70, encoding: str = "utf-8") -> list[str]:
    """At most eight lines of at most `width` characters (a path may be longer), without a prefix."""
    lines = []
    ended = describe.ending(run, diagnosis)
    if ended:
        lines.append(f"{ended}; before that:" if diagnosis.incidents else ended)
    acted, withdrawn = describe.acted(run), describe.withdrawn(run, diagnosis)
    lines += _incidents(diagnosis, WORST - bool(acted) - bool(withdrawn))
    if not diagnosis.incidents and describe.steps_of(run, diagnosis):
        seen = "nothing abnormal before that" if ended else "nothing abnormal was seen"
        lines.append("; ".join(filter(None, (seen, describe.unjudged(run)))))
    if withdrawn:
        told = f"withdrawn: {', '.join(withdrawn)}, told while it trained; the whole run does not bear it out"
        lines.append(told)
    if acted:
        lines.append(f"interventions: {acted}")
    spent = cost(run, diagnosis)
    seen = "; ".join(filter(None, (spent.steps_words, spent.allowed)))
    if seen:
        lines.append(f"recorded: {seen}")
    unseen = [item.what for item in describe.unobserved(run)] + list(run.notes)
    if unseen:
        lines.append(f"not observed: {', '.join(unseen)}")
    plain = [speakable(shortened(line), encoding) for line in lines]
    short = [textwrap.shorten(line, width, placeholder=" ...") for line in plain]
    following = speakable(f"next: {'   '.join(describe.next_commands(run, diagnosis))}", encoding)
    return [_first(run, diagnosis, width, encoding), *short, following]


def alert_line(diagnosis: Diagnosis, finding: Finding, encoding: str = "utf-8") -> str:
    """`critical: nonfinite-origin since step 154 at blocks.1 (Block, model.py:18): The output …`."""
    rooted = (i.culprit for i in diagnosis.incidents if diagnosis.findings[i.root] is finding)
    culprit = next(rooted, None)
    where = f" at {describe.blamed(culprit)}" if culprit and describe.blamed(culprit) else ""
    since = f"{finding.severity}: {finding.signature} since step {finding.onset_step}"
    return speakable(f"{since}{where}: {finding.message}", encoding)


def _incidents(diagnosis: Diagnosis, most: int) -> list[str]:
    """At most `most` lines: the worst incident with what moved first in it, the next, and how many more."""
    incidents = diagnosis.incidents
    told = [_headline(diagnosis, incident) for incident in incidents]
    if incidents and incidents[0].first_mover:
        told.insert(1, f"moved first: {describe.first_moved(incidents[0].first_mover)}")
    if len(told) <= most:
        return told
    return [*told[: most - 1], f"and {len(told) - most + 1} more"]


def _headline(diagnosis: Diagnosis, incident: Incident) -> str:
    root, culprit = diagnosis.findings[incident.root], incident.culprit
    line = f"{str(root.severity).upper():8} {root.signature} since step {count(incident.onset_step)}"
    graver = describe.graver(diagnosis, incident)
    line += f", {graver}," if graver else ""
    if root.sites and root.sites[0] != "run":
        first, *others = root.sites
        source = f" ({describe.nearby(culprit.source)})" if culprit and culprit.source else ""
        return f"{line} at {', '.join([first + source, *others])}"
    return f"{line}: {describe.blamed(culprit)}" if culprit else line


def _first(run: Run, diagnosis: Diagnosis, width: int, encoding: str) -> str:
    facts = describe.run_facts(run, diagnosis)
    stored = size_on_disk(run.path)
    told = ", ".join([*facts, size(stored)] if stored else facts)
    plain = speakable("▁×", encoding) != "▁×"
    drawn = sparkline(loss_curve(run), max(min(width - len(told) - 8, 24), 1), ascii_only=plain)
    return f"{told}   loss {drawn}" if drawn else told


def size_on_disk(path: Path | None) -> int:
    """Bytes of the files of a run directory, 0 where there is none."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path else 0
