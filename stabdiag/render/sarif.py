"""The outcome of a check as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.finding import Finding, Severity, plain
from stabdiag.core.gate import Gate
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.source_places import SourcePlace, script_place, source_place
from stabdiag.render.terminal import speakable
from stabdiag.render.untrusted import presentable

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.info: "note", Severity.warning: "warning", Severity.critical: "error"}
CRASH, FINGERPRINT = "crash", "signatureAndSite/v1"
MOST = 100
"""Sites of a finding that are told."""


def render_sarif(run: Run, gate: Gate, version: str) -> str:
    """Equal text for equal runs. All findings are results, each at its severity; what a baseline has is
    `unchanged`. `version` is that of the tool."""
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(run, gate, version)]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _run(run: Run, gate: Gate, version: str) -> dict[str, Any]:
    findings = gate.diagnosis.findings
    ids = list(dict.fromkeys([finding.signature for finding in findings] + [CRASH] * bool(gate.crash)))
    results = [_result(run, gate, ids, finding) for finding in findings]
    if gate.crash:
        results.append(_crash(run, gate, ids))
    return {
        "tool": {
            "driver": {"name": "stabdiag", "semanticVersion": version, "rules": [_rule(id) for id in ids]}
        },
        "automationDetails": {"id": "stabdiag/check"},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": 0 if gate.passed else 1,
                "toolExecutionNotifications": [
                    {
                        "level": "note",
                        "message": {"text": _one_line(f"{skip.signature} skipped: {skip.because}")},
                    }
                    for skip in gate.diagnosis.skipped
                ],
            }
        ],
        "results": results,
    }


def _rule(id: str) -> dict[str, Any]:
    """A signature, with its documentation as help."""
    if id not in SIGNATURES:
        text = "The training ended by a signal or an error, and nothing that was recorded explains it."
        return {"id": _one_line(id), "shortDescription": {"text": text}, "help": {"text": text}}
    signature = SIGNATURES[id]
    first, *_ = signature.doc.split("\n\n")
    return {
        "id": id,
        "name": "".join(word.capitalize() for word in id.split("-")),
        "shortDescription": {"text": f"{signature.title}."},
        "fullDescription": {"text": " ".join(first.split())},
        "help": {"text": signature.doc},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["training", "stability"]},
    }


def _result(run: Run, gate: Gate, ids: list[str], finding: Finding) -> dict[str, Any]:
    result = {
        "ruleId": _one_line(finding.signature),
        "ruleIndex": ids.index(finding.signature),
        "level": LEVELS[finding.severity],
        "message": {"text": _message(gate, finding)},
        "locations": _locations(source_place(run, gate.diagnosis, finding), finding.sites),
        "partialFingerprints": {FINGERPRINT: _fingerprint(finding.signature, *finding.sites[:1])},
        "rank": round(100 * finding.confidence, 1) if math.isfinite(finding.confidence) else -1.0,
        "properties": plain(
            {
                "onsetStep": finding.onset_step,
                "lastStep": finding.last_step,
                "value": finding.value,
                "threshold": finding.threshold,
                "failsTheCheck": finding in gate.failing,
            }
        ),
    }
    if gate.known is not None:
        result["baselineState"] = "unchanged" if finding in gate.known else "new"
    return result


def _message(gate: Gate, finding: Finding) -> str:
    """What, when, the likely cause, and the change that cures it."""
    told = [f"{describe.titled(finding)}, {describe.span(finding)}. {finding.message}"]
    for incident in gate.diagnosis.incidents:
        if gate.diagnosis.findings[incident.root] is finding:
            told += [f"Likely cause: {describe.cause_line(incident.cause)}."] if incident.cause else []
            told += [f"To change: {fix.change or fix.title}." for fix in incident.fixes[:1]]
    # Brackets are links in a message.
    return _one_line(" ".join(told)).replace("[", "\\[").replace("]", "\\]")


def _locations(place: SourcePlace | None, sites: tuple[str, ...]) -> list[dict[str, Any]]:
    """One: the file, and the places in the model."""
    location: dict[str, Any] = {}
    if place:
        region = {"region": {"startLine": place.line}} if place.line else {}
        location["physicalLocation"] = {"artifactLocation": {"uri": place.uri}, **region}
    named = [_one_line(site) for site in sites[:MOST] if site != "run"]
    if named:
        location["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "module"} for name in named]
    return [location] if location else []


def _crash(run: Run, gate: Gate, ids: list[str]) -> dict[str, Any]:
    return {
        "ruleId": CRASH,
        "ruleIndex": ids.index(CRASH),
        "level": "error",
        "message": {"text": _one_line(f"The run {gate.crash}.")},
        "locations": _locations(script_place(run), ()),
        "partialFingerprints": {FINGERPRINT: _fingerprint(CRASH)},
    }


def _fingerprint(*parts: str) -> str:
    """The same for the same pattern at the same place, in whichever run."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _one_line(text: str) -> str:
    return speakable(presentable(text), "utf-8")
