"""What a card says beside its words: the chain, both sides of the argument, and code for each host."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis, FirstMover, Incident
from stabdiag.core.finding import CauseRanked, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of
from stabdiag.render import describe, figures
from stabdiag.render.argument import argument
from stabdiag.render.curve import Curve, loss_curve
from stabdiag.render.dashboard import Panel
from stabdiag.render.hosts import ARGUMENTS, host_codes
from stabdiag.render.page import render_page
from stabdiag.render.view import VIEWS


def _finding(*causes: CauseRanked, signature: str = "bad-batch") -> Finding:
    return Finding(Severity.critical, 0.9, ("run",), 5, 6, 7, "m", signature=signature, causes=causes)


def test_what_begins_with_but_speaks_against_and_rivals_do_too() -> None:
    first = CauseRanked("corrupt-batch", 0.6, "values up to 1e4; but the loss came back; a NaN in it")
    rival = CauseRanked("benign-transient", 0.3, "it came back")
    hardly = CauseRanked("learning-rate-too-high", 0.01, "the rate is high")
    root = _finding(first, rival, hardly, signature="loss-spike")
    found = argument(root, Incident(Severity.critical, 0, (0,), 5, first, ()))
    assert found.pro == ("values up to 1e4", "a NaN in it")
    assert found.contra == ("the loss came back",)
    assert found.rivals == (rival,)
    assert "learning-rate-too-high" in found.unlikely
    assert {"corrupt-batch", "benign-transient"}.isdisjoint(found.unlikely)


def test_a_card_has_both_sides(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    text = re.sub(r"<[^>]+>|\s+", " ", render_page(failed_run, failed_diagnosis, "cdn"))
    text = " ".join(text.split())
    assert "For the update-to-weight ratio passed 1e-2" in text
    assert "Against it may be that missing normalisation (12 %)" in text


def test_the_chain_leads_from_what_moved_first_to_the_last_symptom(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    mover = FirstMover("output.rms", "blocks.7.mlp", 1431, 1430, 5.0, (1.0, 4.0), 24)
    first, *others = failed_diagnosis.incidents
    told = replace(failed_diagnosis, incidents=(replace(first, first_mover=mover), *others))
    page = render_page(failed_run, told, "cdn")
    chain = re.search(r'<ol class="chain">(.*?)</ol>', page, re.DOTALL)
    assert chain
    items = [re.sub(r"<[^>]+>|\s+", " ", item) for item in chain[1].split("<li>")[1:]]
    assert "output.rms at blocks.7.mlp, step 1,431, 24 steps before the loss" in " ".join(items[0].split())
    assert [
        int(n.replace(",", "")) for item in items[1:] for n in re.findall(r"steps ([\d,]+) to", item)
    ] == [
        1430,
        1455,
        1880,
    ]


def test_the_timeline_marks_what_moved_first_and_its_lead(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    mover = FirstMover("output.rms", "blocks.7.mlp", 1431, 1430, 5.0, (1.0, 4.0), 24)
    first, *others = failed_diagnosis.incidents
    told = replace(failed_diagnosis, incidents=(replace(first, first_mover=mover), *others))
    before, after = (figures.timeline(failed_run, d)["layout"]["shapes"] for d in (failed_diagnosis, told))
    line, bar = after[len(before) :]
    assert (line["x0"], line["x1"]) == (1431, 1431)
    assert (bar["x0"], bar["x1"], bar["label"]["text"]) == (1431, 1455, "24 steps")
    page = render_page(failed_run, told, "cdn")
    assert page.count('<path class="mover"') == 1


def test_no_tick_stands_between_steps_and_a_constant_learning_rate_stands_above_zero(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    alone = Curve("a", np.array([198]), np.array([3.0]))
    assert figures.line_chart([alone], ["a"], "")["layout"]["xaxis"]["dtick"] == 1
    assert "dtick" not in figures.line_chart([loss_curve(failed_run)], ["a"], "")["layout"]["xaxis"]
    assert figures.timeline(failed_run, failed_diagnosis)["layout"]["yaxis2"]["rangemode"] == "tozero"


def test_titles_run_on_in_a_sentence_and_names_keep_their_capital() -> None:
    titles = ("Each step replaces", "The loss jumps", "Adam's epsilon", "ReLU dies", "A jump")
    told = [describe.running(title) for title in titles]
    assert told == ["each step replaces", "the loss jumps", "Adam's epsilon", "ReLU dies", "a jump"]


@pytest.mark.parametrize(
    ("code", "hugging_face", "lightning"),
    [
        (
            "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)  # before optimizer.step()",
            "TrainingArguments(max_grad_norm=0.5)",
            "Trainer(gradient_clip_val=0.5)",
        ),
        (
            "optimizer = torch.optim.AdamW(model.parameters(), lr=3e-04, betas=(0.9, 0.95))",
            "TrainingArguments(learning_rate=3e-04, adam_beta1=0.9, adam_beta2=0.95)",
            None,
        ),
        ("(loss / 4).backward()  # of each batch", "TrainingArguments(gradient_accumulation_steps=4)", None),
        (
            "with torch.autocast(device_type=device.type, dtype=torch.bfloat16):",
            "TrainingArguments(bf16=True)",
            'Trainer(precision="bf16-mixed")',
        ),
        ("optimizer = torch.optim.AdamW(model.parameters(), lr=lr)", None, None),
        ("optimizer.zero_grad()", None, None),
    ],
)
def test_a_fix_is_said_in_the_arguments_of_trainers(
    code: str, hugging_face: str | None, lightning: str | None
) -> None:
    found = {host.host: host.code for host in host_codes(code)}
    assert found.get("Hugging Face") == hugging_face
    if lightning:
        assert found["Lightning"] == lightning


def test_the_arguments_are_those_of_the_real_trainers() -> None:
    transformers, lightning = pytest.importorskip("transformers"), pytest.importorskip("lightning")
    known = [
        set(inspect.signature(f).parameters) for f in (transformers.TrainingArguments, lightning.Trainer)
    ]
    for _, *said in ARGUMENTS:
        for names, parameters in zip(said, known, strict=True):
            if names:
                assert names.format("bf").partition("=")[0] in parameters


def test_batches_are_told_by_their_fingerprints() -> None:
    prints = np.arange(100) % 90 + 1000
    loss = np.linspace(5, 1, 100)
    loss[70], loss[40], loss[95] = 9.0, np.nan, 5.0
    run = run_of(
        {"run.loss": loss, "batch.fingerprint": prints},
        sites={"batch": ["tokens"]},
    )
    (drawn,) = VIEWS["batches"].draw(run, Panel(series=("batch.fingerprint",), view="batches"))
    assert drawn.caption.startswith("100 batches of tokens, 90 different")
    assert drawn.head == ("step", "fingerprint", "loss", "also at steps")
    assert drawn.rows[0][:3] == ("40", "000410", "NaN")
    assert drawn.rows[1][:3] == ("70", "00042e", "9")
    assert drawn.rows[2] == ("95", "0003ed", "5", "5"), "the batch of step 5 came again"
    assert (
        list(VIEWS["batches"].draw(run_of({"run.loss": [1.0]}), Panel(series=("batch.fingerprint",)))) == []
    )
