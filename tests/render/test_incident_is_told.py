"""What moved first, and whom an incident is pinned on, in every kind of report."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import jsonschema
import pytest

from stabdiag.core.diagnosis import Batch, Culprit, Diagnosis, FirstMover
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.json_report import render_json, report_schema
from stabdiag.render.markdown import render_markdown
from stabdiag.render.page import render_page
from stabdiag.render.summary import summary_lines
from stabdiag.render.terminal import console_for
from stabdiag.render.text import render_text

MOVER = FirstMover("attention.max_logit", "blocks.3.attn", 1_416, 1_415, 61.0, (4.0, 14.0), 14)
HEAD = Culprit("blocks.3.attn", "CausalSelfAttention", head=2, source="/home/me/gpt/model.py:39", rank=1)
TOLD = "attention.max_logit at blocks.3.attn, step 1,416, 14 steps before the loss"


@pytest.fixture
def told(failed_diagnosis: Diagnosis) -> Diagnosis:
    first, second = failed_diagnosis.incidents
    batch = Culprit(batch=Batch(700, 14_333_250, (80, 412)))
    first = replace(first, first_mover=MOVER, culprit=HEAD)
    return replace(failed_diagnosis, incidents=(first, replace(second, culprit=batch)))


def _terminal(run: Run, diagnosis: Diagnosis) -> str:
    stream = io.StringIO()
    render_text(run, diagnosis, console_for(stream))
    return " ".join(stream.getvalue().split())


def test_the_summary_says_what_moved_first_and_where_the_class_stands(
    failed_run: Run, told: Diagnosis
) -> None:
    lines = summary_lines(failed_run, told, width=120)
    assert len(lines) <= 8
    assert f"moved first: {TOLD}" in lines
    assert any("at blocks.7.mlp (gpt/model.py:39), blocks.6.mlp" in line for line in lines)


def test_the_summary_of_a_batch_says_its_fingerprint(failed_run: Run, told: Diagnosis) -> None:
    alone = replace(told.findings[3], sites=("run",))
    one = replace(told, findings=(*told.findings[:3], alone), incidents=told.incidents[1:])
    assert any(
        "the batch of step 700, fingerprint dab542" in s for s in summary_lines(failed_run, one, width=120)
    )


def test_every_report_says_what_moved_first_and_whom_to_blame(failed_run: Run, told: Diagnosis) -> None:
    blamed = "blocks.3.attn (CausalSelfAttention, gpt/model.py:39), head 2, rank 1"
    batch = "the batch of step 700, fingerprint dab542, trained on at 80, 412 as well"
    page = render_page(failed_run, told, "cdn")
    for text in (_terminal(failed_run, told), page, render_markdown(failed_run, told).replace("\\", "")):
        for part in (TOLD, blamed, batch):
            assert part in text


def test_the_json_keeps_to_the_schema_and_comes_back_whole(told: Diagnosis) -> None:
    record = json.loads(render_json(told))
    jsonschema.Draft202012Validator(report_schema()).validate(record)
    assert Diagnosis.from_json(record) == told


def test_a_report_of_an_older_version_can_be_read(told: Diagnosis) -> None:
    record = json.loads(render_json(told))
    for incident in record["incidents"]:
        del incident["first_mover"], incident["culprit"]
    jsonschema.Draft202012Validator(report_schema()).validate(record)
    assert Diagnosis.from_json(record).incidents[0].first_mover is None


def test_an_unknown_cause_is_an_answer(failed_run: Run, told: Diagnosis) -> None:
    unknown = replace(told.incidents[0], cause=None)
    diagnosis = replace(told, incidents=(unknown, *told.incidents[1:]))
    assert "unknown; of those known the likeliest is: lr too high (83 %)" in _terminal(failed_run, diagnosis)
    assert "| likely cause | unknown; of those known" in render_markdown(failed_run, diagnosis)
    assert "Unknown; of those known the likeliest is" in render_page(failed_run, diagnosis, "cdn")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"within": 1_400}, "between steps 1,400 and 1,416, 14 steps before the loss"),
        ({"lead": 0}, "step 1,416, with the loss"),
        ({"lead": -3}, "step 1,416, with the loss"),
        ({"lead": None}, "step 1,416, and the loss did not follow"),
        ({"lead": 1}, "step 1,416, 1 step before the loss"),
    ],
)
def test_the_lead_is_told_as_finely_as_it_is_known(change: dict[str, int], words: str) -> None:
    assert describe.first_moved(replace(MOVER, **change)) == f"attention.max_logit at blocks.3.attn, {words}"
    loss = replace(MOVER, series="run.loss", site="run", lead=0)
    assert describe.first_moved(loss) == "the loss itself, step 1,416"


@pytest.mark.parametrize(
    ("title", "inside"),
    [
        ("Steps that are too long throw the loss up", "steps that are too long throw the loss up"),
        ("A batch of damaged data", "a batch of damaged data"),
        ("Adam's epsilon outweighs the gradients", "Adam's epsilon outweighs the gradients"),
        ("NaN in the loss", "NaN in the loss"),
    ],
)
def test_a_title_within_a_sentence_begins_small_unless_with_a_name(title: str, inside: str) -> None:
    assert describe.running(title) == inside


def test_a_root_has_its_own_severity_and_what_followed_is_said_to_be_worse(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    mild, *others = failed_diagnosis.findings
    led = replace(failed_diagnosis, findings=(replace(mild, severity=Severity.warning), *others))
    told = {
        "terminal": _terminal(failed_run, led),
        "markdown": render_markdown(failed_run, led),
        "summary": summary_lines(failed_run, led, width=120)[2],
        "page": " ".join(render_page(failed_run, led).split()),
    }
    assert "1 WARNING activations out of hand, with critical consequences" in told["terminal"]
    assert "led to critical: The loss rises" in told["terminal"]
    assert "activations out of hand (warning, with critical consequences)" in told["markdown"]
    assert told["summary"].startswith("WARNING activations-out-of-hand since step 1,430, with critical")
    assert '<span class="badge warning">1 · warning</span> activations out of hand' in told["page"]
    assert '<span class="badge critical">with critical consequences</span>' in told["page"]
    for same in (_terminal(failed_run, failed_diagnosis), render_page(failed_run, failed_diagnosis)):
        assert "consequences" not in same
