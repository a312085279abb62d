"""JUnit XML and SARIF 2.1.0 of a check: what readers of either rely on, and no trust in any string."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.diagnosis import Culprit, Diagnosis, Skipped
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.gate import Gate
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.junit import render_junit
from stabdiag.render.sarif import render_sarif
from stabdiag.render.source_places import source_place

HOSTILE = "<script>]]>&\x00\x1b[31m\u202e\ufffe\ud800../../x[a](b)"

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
URI = {"type": "string", "format": "uri-reference", "pattern": r"^([A-Za-z0-9._~/-]|%[0-9A-F]{2}|file://)*$"}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    """An object of these properties and no others, as all of SARIF is."""
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


# Of the schema of SARIF 2.1.0 (OASIS) the parts that are written here, with what is required in them.
LEVEL = {"enum": ["none", "note", "warning", "error"]}
RULE = closed(
    ["id"],
    id={"type": "string"},
    name={"type": "string", "pattern": "^[A-Za-z]+$"},
    shortDescription=TEXT,
    fullDescription=TEXT,
    help=TEXT,
    defaultConfiguration=closed([], level=LEVEL),
    properties={"type": "object"},
)
PHYSICAL = closed(
    ["artifactLocation"],
    artifactLocation=closed(["uri"], uri=URI),
    region=closed(["startLine"], startLine={"type": "integer", "minimum": 1}),
)
LOCATION = closed(
    [],
    physicalLocation=PHYSICAL,
    logicalLocations=listed(closed([], fullyQualifiedName={"type": "string"}, kind={"type": "string"})),
)
RESULT = closed(
    ["message", "ruleId", "ruleIndex"],
    ruleId={"type": "string"},
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=TEXT,
    locations=listed(LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
    rank={"type": "number", "minimum": -1, "maximum": 100},
    baselineState={"enum": ["new", "unchanged", "updated", "absent"]},
    properties={"type": "object"},
)
INVOCATION = closed(
    ["executionSuccessful"],
    executionSuccessful={"type": "boolean"},
    exitCode={"type": "integer"},
    toolExecutionNotifications=listed(closed(["message"], message=TEXT, level=LEVEL)),
)
DRIVER = closed(
    ["name"],
    name={"const": "stabdiag"},
    semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
    rules=listed(RULE),
)
SARIF = closed(
    ["version", "runs"],
    version={"const": "2.1.0"},
    runs=listed(
        closed(
            ["tool"],
            tool=closed(["driver"], driver=DRIVER),
            automationDetails=closed([], id={"type": "string"}),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            invocations=listed(INVOCATION),
            results=listed(RESULT),
        )
    ),
    **{"$schema": {"type": "string", "format": "uri"}},
)


def gate_of(diagnosis: Diagnosis, **more: Any) -> Gate:
    failing = tuple(f for f in diagnosis.findings if f.severity > Severity.info)
    return Gate(diagnosis, **{"failing": failing, "evaluated": ("loss-divergence", "dead-units"), **more})


@pytest.fixture(scope="module")
def hostile_gate(failed_run: Run, failed_diagnosis: Diagnosis) -> tuple[Run, Gate]:
    findings = (
        replace(failed_diagnosis.findings[0], sites=(HOSTILE,), message=HOSTILE, signature=HOSTILE),
        *failed_diagnosis.findings[1:],
    )
    diagnosis = replace(failed_diagnosis, findings=findings, skipped=(Skipped("dead-units", HOSTILE),))
    site = Site("output", HOSTILE, "Block", source=f"/tmp/{HOSTILE}.py:7")
    run = run_of({"output.rms": [[1.0]]}, sites={"output": [site]}, info=RunInfo(cwd="/home/me/project"))
    return run, gate_of(diagnosis, evaluated=(HOSTILE, "loss-divergence", "loss-spike", "nonfinite"))


def parsed(text: str) -> Any:
    log = json.loads(text)
    jsonschema.validate(log, SARIF, format_checker=jsonschema.FormatChecker())
    return log["runs"][0]


def test_sarif_is_of_the_schema_and_each_rule_is_a_signature_with_its_help(failed_run, failed_diagnosis):
    real = replace(failed_diagnosis.findings[0], signature="exploding-activation")
    diagnosis = replace(failed_diagnosis, findings=(real, *failed_diagnosis.findings[1:]))
    run = parsed(render_sarif(failed_run, gate_of(diagnosis), "0.1.0"))
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [
        finding.signature for finding in diagnosis.findings
    ]
    assert rules[0]["help"]["text"] == SIGNATURES["exploding-activation"].doc
    levels = [result["level"] for result in run["results"]]
    assert levels == ["error", "error", "error", "warning", "note"]
    assert "To change: lower the peak learning rate" in run["results"][0]["message"]["text"]
    assert run["invocations"][0]["exitCode"] == 1
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 3


def test_a_result_is_at_the_line_of_the_class_of_its_module(failed_run, failed_diagnosis):
    run = parsed(render_sarif(failed_run, gate_of(failed_diagnosis), "0.1.0"))
    place = run["results"][0]["locations"][0]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "model.py"},
        "region": {"startLine": 42},
    }
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "blocks.7.mlp"
    # What is of the run itself is at its script.
    of_the_run = run["results"][1]["locations"][0]
    assert of_the_run == {"physicalLocation": {"artifactLocation": {"uri": "train.py"}}}


def test_a_fingerprint_is_of_the_pattern_and_its_place_alone(failed_run, failed_diagnosis):
    def prints(diagnosis: Diagnosis) -> list[str]:
        run = parsed(render_sarif(failed_run, gate_of(diagnosis), "0.1.0"))
        return [result["partialFingerprints"]["signatureAndSite/v1"] for result in run["results"]]

    later = tuple(replace(finding, onset_step=7, message="other") for finding in failed_diagnosis.findings)
    assert prints(replace(failed_diagnosis, findings=later)) == prints(failed_diagnosis)
    assert len(set(prints(failed_diagnosis))) == 5


def test_what_a_baseline_has_is_unchanged(failed_run, failed_diagnosis):
    known = failed_diagnosis.findings[:2]
    run = parsed(render_sarif(failed_run, gate_of(failed_diagnosis, known=known), "0.1.0"))
    states = [result["baselineState"] for result in run["results"]]
    assert states == ["unchanged"] * 2 + ["new"] * 3


def test_a_crash_is_a_result_of_its_own(failed_run, stable):
    gate = Gate(stable(failed_run), (), ("loss-spike",), crash="was killed by SIGKILL")
    run = parsed(render_sarif(failed_run, gate, "0.1.0"))
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [("crash", "error")]
    suite = ET.fromstring(render_junit(failed_run, gate)).find("testsuite")
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error").get("message") == "the run was killed by SIGKILL"


def test_junit_has_a_case_a_signature_with_its_outcome(failed_run, failed_diagnosis):
    evaluated = ("loss-divergence", "nonfinite", "dead-units", "frozen-parameters")
    failing = failed_diagnosis.findings[:3]
    text = render_junit(failed_run, gate_of(failed_diagnosis, evaluated=evaluated, failing=failing))
    suite = ET.fromstring(text).find("testsuite")
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == ["run", *evaluated, *(skip.signature for skip in failed_diagnosis.skipped)]
    told = {name: [part.tag for part in case] for name, case in cases.items()}
    assert told["run"] == told["dead-units"] == []
    assert told["loss-divergence"] == told["nonfinite"] == ["failure"]
    assert told["frozen-parameters"] == ["system-out"]
    assert told["overfitting"] == ["skipped"]
    assert (suite.get("tests"), suite.get("skipped"), suite.get("errors")) == ("8", "3", "0")
    assert len(suite.findall("testcase/failure")) == 2
    failure = cases["loss-divergence"].find("failure")
    assert failure.get("type") == "critical"
    assert "The loss rose from 1.62 to 440" in failure.text
    assert suite.find("properties/property[@name='steps']").get("value") == "2000"


def test_both_are_well_formed_whatever_a_run_calls_its_things(hostile_gate):
    run, gate = hostile_gate
    xml, log = render_junit(run, gate), render_sarif(run, gate, "0.1.0")
    for text in (xml, log):
        text.encode("utf-8")
        assert not [c for c in text if c != "\n" and unicodedata.category(c)[0] == "C"]
    suite = ET.fromstring(xml).find("testsuite")
    assert suite.findall("testcase")[1].find("failure").text.startswith("critical: <script>]]>&")
    result = parsed(log)["results"][0]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.startswith("file:///tmp/")
    assert ".." not in uri
    assert "\\[a\\](b)" in result["message"]["text"]  # no link


@pytest.mark.parametrize(
    ("source", "uri", "line"),
    [
        ("/home/me/project/models/gpt.py:12", "models/gpt.py", 12),
        ("models/gpt.py:12", "models/gpt.py", 12),
        ("/opt/other/gpt.py:3", "file:///opt/other/gpt.py", 3),
        ("../../../../etc/passwd:1", "file:///etc/passwd", 1),
        ("javascript:alert(1):5", "javascript%3Aalert%281%29", 5),
        ("/home/me/project/große datei.py:9", "gro%C3%9Fe%20datei.py", 9),
        ("/x/site-packages/torch/nn/modules/linear.py:130", "train.py", None),
        ("", "train.py", None),
    ],
)
def test_sources_become_addresses_within_the_folder_of_the_run(source, uri, line):
    site = Site("output", "layer", "Block", source=source)
    info = RunInfo(command=("python", "train.py"), cwd="/home/me/project")
    run = run_of({"output.rms": [[1.0]]}, sites={"output": [site]}, info=info)
    finding = Finding(Severity.warning, 1.0, ("layer",), 0, 0, 0, "")
    place = source_place(run, Diagnosis("at-risk", (), (finding,), (), {}), finding)
    assert (place.uri, place.line) == (uri, line)


def test_a_layer_of_torch_is_at_the_class_around_it():
    sites = [
        Site("output", "blocks.0.mlp.fc", "Linear", source="/x/torch/nn/modules/linear.py:130"),
        Site("output", "blocks.0", "Block", source="/home/me/project/gpt.py:30"),
    ]
    run = run_of({"output.rms": [[1.0, 1.0]]}, sites={"output": sites}, info=RunInfo(cwd="/home/me/project"))
    finding = Finding(Severity.warning, 1.0, ("blocks.0.mlp.fc.weight",), 0, 0, 0, "")
    diagnosis = Diagnosis("at-risk", (), (finding,), (), {})
    assert source_place(run, diagnosis, finding).uri == "gpt.py"
    head = replace(finding, sites=("blocks.0[h3]",))
    assert source_place(run, diagnosis, head).line == 30


def test_the_culprit_of_an_incident_knows_its_source_best(failed_run, failed_diagnosis):
    blamed = replace(failed_diagnosis.incidents[0], culprit=Culprit(module="x", source="own/attention.py:88"))
    diagnosis = replace(failed_diagnosis, incidents=(blamed, *failed_diagnosis.incidents[1:]))
    place = source_place(failed_run, diagnosis, diagnosis.findings[0])
    assert (Path(place.uri).name, place.line) == ("attention.py", 88)
