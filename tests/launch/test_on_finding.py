"""`--on-finding`: the finding on standard input, once, and never at the run's expense."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.launch.on_finding import LOG, OnFinding
from stabdiag.launch.signals import HeldSignals
from stabdiag.launch.voice import Voice

STABLE = Diagnosis("stable", (), (), (), {})
HOSTILE = "$(touch taken) `touch taken`; touch taken \x1b[2J\x00\u202e'\""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Has a command called for one finding; seconds may be given."""
    monkeypatch.chdir(tmp_path)
    run = Run(RunInfo(), {}, path=tmp_path)

    def call(command, *sites, seconds=20.0):
        on_finding = OnFinding(command, Voice(), seconds)
        on_finding.began(tmp_path)
        finding = Finding(Severity.critical, 0.9, sites, 3, 4, 5, HOSTILE, signature="loss-spike")
        on_finding.found(run, finding)
        on_finding.ended(run, STABLE)

    return call


def test_a_command_reads_the_finding_on_its_standard_input(call, tmp_path):
    call("cat > told.json")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["signature"] == "loss-spike"
    assert told["severity"] == "critical"
    assert told["onset_step"] == 3
    assert told["run"] == str(tmp_path)


def test_nothing_of_a_finding_is_ever_executed(call, tmp_path):
    call("cat > told.json", HOSTILE, "../../taken")
    assert json.loads((tmp_path / "told.json").read_text())["message"] == HOSTILE
    assert not (tmp_path / "taken").exists()
    assert not (tmp_path.parent / "taken").exists()


def test_what_it_prints_is_kept_and_not_shown(call, tmp_path, capfd):
    call("echo out; echo err >&2")
    assert (tmp_path / LOG).read_text() == "out\nerr\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("command", "because"),
    [
        ("exit 7", "it ended with status 7"),
        ("kill -TERM $$", "it was killed by SIGTERM"),
        ("there-is-no-such-command", "it ended with status 127"),
    ],
)
def test_a_failure_is_told_in_one_line(call, capsys, command, because):
    call(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--on-finding failed for loss-spike: {because}; its output: " in line


def test_one_that_hangs_is_killed_with_all_that_it_began(call, tmp_path, capsys):
    began = time.monotonic()
    call("(sleep 3; touch late) & sleep 30", seconds=0.3)
    assert time.monotonic() - began < 3
    assert "it took more than 0.3 s and was killed" in capsys.readouterr().err
    time.sleep(3.2)
    assert not (tmp_path / "late").exists()


def test_a_command_that_reads_nothing_does_not_fail(call, capsys):
    call("true", *["x" * 1000] * 500)
    assert capsys.readouterr().err == ""


def test_a_run_calls_it_once_a_finding_and_ends_as_it_would(workshop):
    workshop.write_lost("print('trained')")
    done = workshop.run("--on-finding", "cat >> told; echo >> told; exit 3", "train.py")
    assert done.returncode == 0
    assert done.stdout == "trained\n"
    told = [json.loads(line) for line in Path(workshop.folder, "told").read_text().splitlines()]
    signatures = [one["signature"] for one in told]
    assert "nonfinite-origin" in signatures
    assert len(signatures) == len(set(signatures))
    assert done.stderr.count("--on-finding failed for ") == len(signatures)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
@pytest.mark.skipif(shutil.which("bash") is None, reason="dash lets go of them by itself")
def test_its_signals_are_not_held_back(call, tmp_path, monkeypatch):
    """The supervisor's are: a command that inherited that could not be ended."""
    monkeypatch.setattr("stabdiag.launch.on_finding.SHELL", shutil.which("bash"))
    with HeldSignals():
        call("grep SigBlk /proc/self/status > held")
    assert int((tmp_path / "held").read_text().split()[1], 16) == 0
