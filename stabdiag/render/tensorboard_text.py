"""The diagnosis as texts of TensorBoard: the report, and each finding at the step where it began."""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.markdown import code, escaped, render_markdown


def findings_text(run: Run, diagnosis: Diagnosis) -> Iterator[tuple[str, int, str]]:
    """(tag, step, markdown)."""
    yield "report", max(run.steps - 1, 0), render_markdown(run, diagnosis)
    roots = {incident.root: incident for incident in diagnosis.incidents}
    told: set[str] = set()
    for i, finding in enumerate(diagnosis.findings):
        if finding.signature not in told:  # ranked: the first of a signature is the gravest
            told.add(finding.signature)
            text = "\n\n".join(_lines(finding, roots.get(i)))
            yield f"findings/{finding.signature}", finding.onset_step, text


def _lines(finding: Finding, incident: Incident | None) -> Iterator[str]:
    title = escaped(describe.signature_title(finding.signature))
    yield f"**{str(finding.severity).upper()}** {title}, {describe.span(finding)}"
    yield escaped(finding.message)
    if describe.place(finding):
        yield "at " + ", ".join(code(site) for site in finding.sites[:6])
    if incident is None:
        return
    if incident.cause:
        yield f"Likely cause: {escaped(describe.cause_line(incident.cause))}"
    for fix in incident.fixes[:2]:
        yield f"To change: {escaped(fix.change or fix.title)}"
