"""`stabdiag verify`: what is replayed, and a whole verification."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis, FixAdvice, Incident, Mark
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import RunInfo
from stabdiag.core.synthetic import run_of
from stabdiag.core.verification import Trial, Verification, marked
from stabdiag.launch.verify import plan
from stabdiag.render.json_report import report_schema
from stabdiag.store.verification import read_verification, write_verification


def diagnosis(*fixes, severity=Severity.critical, onset=80):
    finding = Finding(severity, 0.9, ("run",), onset, onset + 5, onset + 9, "", signature="loss-spike")
    return Diagnosis("unstable", (Incident(severity, 0, (0,), onset, None, fixes),), (finding,), (), {})


def fix(id, **runtime):
    return FixAdvice(id, id, "", "", runtime)


def run(tmp_path, *command, steps=1000, cwd=None):
    (tmp_path / "train.py").touch()
    info = RunInfo(command=command, cwd=str(cwd or tmp_path), device="cpu")
    return run_of({"run.loss": np.ones(steps)}, info=info)


def test_each_fix_that_has_a_form_at_run_time_is_replayed_with_its_numbers(tmp_path):
    found = diagnosis(
        fix("clip-gradients", clip_norm=0.5),
        fix("rollback", rollback_to=60, lr_scale=0.3),
        fix("qk-norm"),
        fix("lower-learning-rate", lr_scale=7.0),  # is none
    )
    planned = plan(run(tmp_path, "train.py"), found)
    assert {v.id: v.apply[:-1] for v in planned.variants} == {
        "unchanged": (),
        "clip-gradients": ("clip-gradients=0.5",),
        "rollback": ("lower-learning-rate=0.3@60",),
        "placebo": ("lower-learning-rate=0.1",),
    }
    assert planned.untried == ("qk-norm", "lower-learning-rate")
    assert planned.horizon == 180
    assert all(v.apply[-1] == "early-stopping=180" for v in planned.variants)


def test_a_run_that_ended_there_needs_no_stop(tmp_path):
    planned = plan(run(tmp_path, "train.py", steps=120), diagnosis())
    assert planned.horizon == 120
    assert planned.variants[0].apply == ()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("stabdiag.watch",), "recorded inside a program"),
        (("python",), "came through standard input"),
        (("python3", "-", "0.1"), "came through standard input"),
        ((), "does not say which command"),
        (("gone.py",), "there is no gone.py"),
    ],
)
def test_what_cannot_be_replayed_is_told_in_one_line(tmp_path, command, message):
    with pytest.raises(StabdiagError) as error:
        plan(run(tmp_path, *command), diagnosis())
    assert message in error.value.message
    assert "\n" not in error.value.message


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(StabdiagError, match="is gone"):
        plan(run(tmp_path, "train.py", cwd=tmp_path / "gone"), diagnosis())


def test_a_run_without_a_warning_has_nothing_to_verify(tmp_path):
    with pytest.raises(StabdiagError, match="nothing to verify"):
        plan(run(tmp_path, "train.py"), diagnosis(severity=Severity.info))


VERIFICATION = Verification(
    horizon=120,
    same_until=120,
    again=True,
    fault=None,
    healthy=1.0,
    against="its trend",
    trials=(
        Trial("unchanged", verdict="failed", findings=("loss-spike",)),
        Trial("rollback", ("rollback=3@5",), {"rollback_to": 5.0}, "made it worse", "", -0.5, 3.0),
        Trial("clip-gradients", ("clip-gradients=0.5",), {"clip_norm": 0.5}, "verified", "", 0.97, 1.1),
    ),
    untried=("qk-norm",),
)


def test_a_verification_is_read_as_it_was_written(tmp_path):
    assert read_verification(tmp_path) is None
    write_verification(tmp_path, VERIFICATION)
    assert read_verification(tmp_path) == VERIFICATION
    (tmp_path / "verification.json").write_text("{")
    assert read_verification(tmp_path) is None


def test_fixes_are_marked_where_they_were_tried_by_the_same_numbers_and_cures_come_first():
    advised = diagnosis(fix("rollback", rollback_to=5), fix("qk-norm"), fix("clip-gradients", clip_norm=0.5))
    (incident,) = marked(advised, VERIFICATION).incidents
    assert [(f.id, f.mark) for f in incident.fixes] == [
        ("clip-gradients", Mark("verified", 0.97)),
        ("qk-norm", None),
        ("rollback", Mark("made it worse", -0.5)),
    ]
    other = diagnosis(fix("clip-gradients", clip_norm=0.7))
    assert marked(other, VERIFICATION).incidents[0].fixes[0].mark is None
    record = json.loads(json.dumps(marked(advised, VERIFICATION).to_json()))
    assert Diagnosis.from_json(record) == marked(advised, VERIFICATION)
    schema = {"$defs": report_schema()["$defs"], "$ref": "#/$defs/fix"}
    for advice in record["incidents"][0]["fixes"]:
        jsonschema.validate(advice, schema)


SCRIPT = """
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
truth = torch.randn(16, 4)
step = 0
while step < 100_000:
    x = torch.randn(64, 16)
    targets = (x @ truth).argmax(1)
    if step == 60:
        x[3, 5] = float("nan")
    loss = torch.nn.functional.cross_entropy(model(x), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
"""


@pytest.mark.slow
def test_a_cure_is_told_from_a_placebo_and_marked_in_the_report(workshop):
    workshop.write("train.py", SCRIPT)
    workshop.run("--name", "run", "--apply", "early-stopping=160", "train.py")
    command = [sys.executable, "-m", "stabdiag", "verify", "--json", "--jobs", "2"]
    done = subprocess.run(
        command, cwd=workshop.folder, env=workshop.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = Verification.from_json(json.loads(done.stdout))
    assert found == read_verification(workshop.folder / "stabdiag-runs" / "run")
    assert found.again
    assert found.same_until >= 160
    assert found.trial("unchanged").level is None
    assert found.trial("unchanged").signal == "SIGINT"
    cure = found.trial("skip-nonfinite-steps")
    assert (cure.mark, cure.acted) == ("verified", {"skipped": 1})
    assert cure.recovery > 0.8
    assert found.trial("placebo").mark == "did not help"
    report = workshop.plain(sys.executable, "-m", "stabdiag", "report", "--format", "text")
    assert "(verified in a replay, the loss recovered by" in " ".join(report.stdout.split())
