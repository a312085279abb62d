"""The outcome of a check as JUnit XML: a test case a signature."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from stabdiag.core.finding import Finding
from stabdiag.core.gate import Gate
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.source_places import source_place
from stabdiag.render.terminal import speakable
from stabdiag.render.untrusted import presentable


def render_junit(run: Run, gate: Gate) -> str:
    """Equal text for equal runs. A case fails by the findings that fail the check, and is skipped where the
    signature could not be judged; what a run's own end says is a case of its own."""
    skipped = {skip.signature: skip.because for skip in gate.diagnosis.skipped}
    names = [*gate.evaluated, *skipped]
    failed = {finding.signature for finding in gate.failing}
    suite = ET.Element("testsuite", name="stabdiag", tests=str(len(names) + 1))
    suite.set("failures", str(len(failed)))
    suite.set("errors", "1" if gate.crash else "0")
    suite.set("skipped", str(len(skipped)))
    suite.set("time", f"{gate.diagnosis.run.get('duration_s') or 0:.3f}")
    facts = ET.SubElement(suite, "properties")
    for name in ("path", "steps", "verdict"):
        value = gate.diagnosis.verdict if name == "verdict" else gate.diagnosis.run.get(name)
        ET.SubElement(facts, "property", name=name, value=_plain(str(value)))
    end = ET.SubElement(suite, "testcase", classname="stabdiag", name="run", time="0")
    if gate.crash:
        ET.SubElement(end, "error", message=_plain(f"the run {gate.crash}"), type="crash")
    for name in names:
        case = ET.SubElement(suite, "testcase", classname="stabdiag.signatures", name=_plain(name), time="0")
        if name in skipped:
            ET.SubElement(case, "skipped", message=_plain(skipped[name]))
            continue
        _findings(case, run, gate, [f for f in gate.diagnosis.findings if f.signature == name])
    whole = ET.Element("testsuites")
    whole.append(suite)
    ET.indent(whole)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(whole, encoding="unicode") + "\n"


def _findings(case: ET.Element, run: Run, gate: Gate, findings: list[Finding]) -> None:
    """Those that fail as one failure, as a case has one outcome; the others as output."""
    failing = [finding for finding in findings if finding in gate.failing]
    others = [finding for finding in findings if finding not in gate.failing]
    if failing:
        worst = max(failing, key=lambda finding: finding.severity)
        failure = ET.SubElement(case, "failure", message=_plain(_headline(worst)), type=str(worst.severity))
        failure.text = "\n".join(_told(run, gate, finding) for finding in failing)
    if others:
        ET.SubElement(case, "system-out").text = "\n".join(_told(run, gate, finding) for finding in others)


def _headline(finding: Finding) -> str:
    return f"{describe.titled(finding)}, {describe.span(finding)}"


def _told(run: Run, gate: Gate, finding: Finding) -> str:
    """What, where, why and what to do, a line each."""
    place = source_place(run, gate.diagnosis, finding)
    lines = [f"{finding.severity}: {_headline(finding)}", finding.message]
    lines += [f"at {place.uri}" + (f":{place.line}" if place.line else "")] if place else []
    for incident in gate.diagnosis.incidents:
        if gate.diagnosis.findings[incident.root] is finding:
            lines += [f"cause: {describe.cause_line(incident.cause)}"] if incident.cause else []
            lines += [f"fix: {fix.change or fix.title}" for fix in incident.fixes[:1]]
    return "\n".join(map(_plain, lines))


def _plain(text: str) -> str:
    """Without what XML cannot hold, and without control characters: on one line."""
    return speakable(presentable(text), "utf-8").replace("\ufffe", "").replace("\uffff", "")
