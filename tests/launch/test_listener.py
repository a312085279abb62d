"""What sends a run on hears of it, and never hurts it."""

from __future__ import annotations

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.launch.listener import Listener, Listeners
from stabdiag.launch.supervisor import Options, supervise
from stabdiag.launch.target import resolve_target
from stabdiag.launch.voice import Voice

RUN = Run(RunInfo(), {})


def found(signature, severity=Severity.warning):
    return Finding(severity, 0.9, ("a",), 1, 1, 1, "a message", signature=signature)


def diagnosed(*findings):
    return Diagnosis("at-risk", (), findings, (), {})


class Noting(Listener):
    def __init__(self, name="--noting"):
        self.name = name
        self.heard = []

    def began(self, run_dir):
        self.heard.append(("began", run_dir.name))

    def looked(self, run, diagnosis):
        self.heard.append(("looked", run.steps))

    def found(self, run, finding):
        self.heard.append(("found", finding.signature))

    def ended(self, run, diagnosis):
        self.heard.append(("ended", run.steps))


class Failing(Noting):
    def looked(self, run, diagnosis):
        raise OSError("no space left")


def test_a_finding_is_told_once_and_not_again_when_it_gets_worse():
    noting = Noting()
    hearing = Listeners([noting], Voice(quiet=True))
    hearing.looked(RUN, diagnosed(found("loss-spike"), found("dead-units", Severity.info)))
    hearing.looked(RUN, diagnosed(found("loss-spike", Severity.critical), found("loss-spike")))
    hearing.ended(RUN, diagnosed(found("loss-spike"), found("loss-plateau")))
    told = [what for kind, what in noting.heard if kind == "found"]
    assert told == ["loss-spike", "loss-plateau"]
    assert noting.heard[-1][0] == "ended"


def test_one_that_fails_is_told_once_and_the_others_go_on(capsys):
    failing, noting = Failing("--failing"), Noting()
    hearing = Listeners([failing, noting], Voice())
    hearing.looked(RUN, diagnosed(found("loss-spike")))
    hearing.ended(RUN, diagnosed())
    assert failing.heard == []
    assert [kind for kind, _ in noting.heard] == ["looked", "found", "ended"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "stabdiag: --failing failed and is off, the run goes on: no space left"


def test_a_run_that_ends_before_the_first_look_is_heard_of_whole(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr("stabdiag.launch.live.PERIOD", 60.0)
    monkeypatch.setattr("os.nice", lambda by: 0)
    options = Options(log_dir=tmp_path / "runs", name="short", page=False, config=Configuration())
    noting = Noting()
    supervise(resolve_target([str(workshop.write_lost())]), options, Voice(quiet=True), [noting])
    assert noting.heard[0] == ("began", "short")
    assert ("found", "nonfinite-origin") in noting.heard
    assert noting.heard[-1] == ("ended", 12)
