"""Cases run in processes of their own, none twice, and the page is written from what they left."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from stabdiag.zoo.case import Case
from stabdiag.zoo.matrix import confusion_svg
from stabdiag.zoo.outcome import judge
from stabdiag.zoo.plan import JUDGED
from stabdiag.zoo.runner import recorded, recorded_cases, run_cases
from stabdiag.zoo.score import CONTROL, NOTHING, Score
from stabdiag.zoo.survey import judge_part, write_page

FAULT = Case("nan-in-batch", "regression", "sgd", 1, every=10)
CASES = [FAULT, FAULT.twin]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    failures = []
    run_cases(CASES, folder / JUDGED.id, 2, lambda case, failure: failures.append(failure))
    assert failures == ["", ""]
    return folder


@pytest.mark.slow
def test_a_recorded_case_is_judged_by_its_truth(zoo):
    outcome = judge(FAULT, zoo / JUDGED.id)
    assert outcome.right.root == "nonfinite-origin"
    assert outcome.planted.step <= outcome.right.onset <= outcome.planted.step + 1
    assert outcome.harmed == outcome.loss_alarm == outcome.planted.step
    assert outcome.alarm == pytest.approx(outcome.planted.step, abs=5)
    twin = judge(FAULT.twin, zoo / JUDGED.id)
    assert twin.planted is None
    assert twin.loud == ()


@pytest.mark.slow
def test_what_is_recorded_is_not_made_again(zoo):
    home = zoo / JUDGED.id
    before = {path: path.stat().st_mtime_ns for path in home.glob("*/*")}
    run_cases(CASES, home, 2, lambda case, failure: None)
    assert {path: path.stat().st_mtime_ns for path in home.glob("*/*")} == before
    assert recorded_cases(home) == sorted(CASES, key=lambda case: case.name)


@pytest.mark.slow
def test_the_page_tells_goals_rivals_and_every_miss(zoo, tmp_path):
    score = judge_part(JUDGED, zoo, 1, lambda case, failure: None)
    write_page([(JUDGED, score)], zoo, tmp_path / "accuracy.md")
    text = (tmp_path / "accuracy.md").read_text()
    assert "| macro F1 | ≥ 0.95 | 1.00 |" in text
    assert "| Megatron's check of the loss | 1.00 (1/1) |" in text
    assert "`nonfinite-origin` | 1 | 0 | 0 |" in text
    ET.parse(tmp_path / "accuracy-confusion.svg")


@pytest.mark.slow
def test_the_command_judges_what_is_recorded(zoo, tmp_path):
    output = tmp_path / "page.md"
    command = (sys.executable, "-m", "stabdiag", "zoo", "--no-record", "--debug")
    where = ("--folder", str(zoo), "--output", str(output))
    done = subprocess.run([*command, *where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "macro F1 1.00, precision 1.00" in done.stdout
    assert output.is_file()


def test_an_unfinished_case_is_not_taken_for_recorded(tmp_path):
    (tmp_path / FAULT.name).mkdir()
    assert not recorded(FAULT, tmp_path)
    (tmp_path / FAULT.name / "truth.json").write_text(json.dumps({"case": FAULT.to_json()}))
    assert recorded(FAULT, tmp_path)


def test_the_confusion_matrix_is_a_picture_with_a_number_a_cell():
    counts = {("dead-units", "dead-units"): 3, ("dead-units", NOTHING): 1, (CONTROL, NOTHING): 9}
    root = ET.fromstring(confusion_svg(counts))
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"3", "1", "9", "dead-units", CONTROL, NOTHING} <= set(texts)
    cells = [node.get("class") for node in root.iter() if node.get("class") in ("hit", "miss")]
    assert sorted(cells) == ["hit", "hit", "miss"]


def test_a_score_of_nothing_is_a_score():
    empty = Score([])
    assert empty.recall.of == 0
    assert empty.rows == []
