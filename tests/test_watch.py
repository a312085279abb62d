"""`stabdiag.watch`: the recorder in a notebook or a script of one's own."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import stabdiag
from stabdiag.core.errors import StabdiagError


@pytest.fixture
def parts():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def step(model, optimizer, count=1):
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


def test_a_block_is_recorded_and_closed_in_good_order(parts, tmp_path):
    with stabdiag.watch(*parts, log_dir=tmp_path, name="mine", every=2) as recording:
        step(*parts, count=7)
    assert recording.path == tmp_path / "mine"
    run = stabdiag.load(tmp_path)
    assert run.steps == 7
    assert run.info.exit_status == 0
    assert run.info.ended >= run.info.started
    assert run.info.configuration["every"] == 2
    assert run.fact("end", "steps") == 7
    assert json.loads((recording.path / "findings.json").read_text())["verdict"] == "stable"


def test_what_is_recorded_can_be_seen_while_training_goes_on(parts, tmp_path):
    with stabdiag.watch(*parts, log_dir=tmp_path) as recording:
        step(*parts, count=3)
        assert recording.run.steps == 3
        assert recording.findings == ()
        step(*parts, count=2)
        assert recording.run.steps == 5


def test_training_goes_on_unrecorded_after_it_is_closed(parts, tmp_path):
    recording = stabdiag.watch(*parts, log_dir=tmp_path)
    step(*parts, count=2)
    recording.close()
    recording.close()
    step(*parts, count=2)
    assert recording.run.steps == 2


def test_an_error_in_the_block_is_the_scripts_own_and_is_noted(parts, tmp_path):
    with pytest.raises(TypeError), stabdiag.watch(*parts, log_dir=tmp_path):
        step(*parts, count="two")
    run = stabdiag.load(tmp_path)
    assert run.info.exit_status == 1
    assert run.info.ended is not None


def test_only_what_is_given_is_recorded_and_its_optimizer_joins(parts, tmp_path):
    model, optimizer = parts
    other = nn.Linear(4, 4)
    others = torch.optim.SGD(other.parameters(), lr=0.1)
    with stabdiag.watch(model, log_dir=tmp_path) as recording:
        for _ in range(3):
            step(model, optimizer)
            step(other, others)
    run = recording.run
    assert [event.data["class"] for event in run.events_of("model")] == ["Sequential"]
    assert len(list(run.events_of("optimizer"))) == 1
    assert {site.name for site in run.sites("grad")} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert {site.name for site in run.sites("batch")} == {"input"}


def test_two_recordings_one_after_the_other_are_two_runs(parts, tmp_path):
    runs = []
    for count in (2, 3):
        with stabdiag.watch(*parts, log_dir=tmp_path) as recording:
            step(*parts, count=count)
        runs.append(recording.run)
    assert [run.steps for run in runs] == [2, 3]
    assert runs[0].path != runs[1].path
    assert stabdiag.load(tmp_path).path == runs[1].path


def test_several_models_and_optimizers_are_one_run(tmp_path):
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    with stabdiag.watch(models, optimizers, log_dir=tmp_path) as recording:
        sum(model(torch.ones(1, 2)).sum() for model in models).backward()
        for optimizer in optimizers:
            optimizer.step()
    names = {site.name for site in recording.run.sites("weight")}
    assert names == {"Linear.weight", "Linear.bias", "Linear-2.weight", "Linear-2.bias"}


def test_a_run_without_a_step_is_a_run(parts, tmp_path):
    with stabdiag.watch(*parts, log_dir=tmp_path) as recording:
        pass
    assert recording.run.steps == 0
    assert recording.findings == ()
    assert recording.report().path.exists()


def test_a_name_that_is_taken_and_a_folder_that_cannot_be_are_told_in_a_line(parts, tmp_path):
    with stabdiag.watch(*parts, log_dir=tmp_path, name="taken"):
        pass
    with pytest.raises(StabdiagError, match="there is a run"):
        stabdiag.watch(*parts, log_dir=tmp_path, name="taken")
    (tmp_path / "file").touch()
    with pytest.raises(StabdiagError, match="no run directory can be made"):
        stabdiag.watch(*parts, log_dir=tmp_path / "file")


def test_it_shows_itself_in_a_notebook_and_reports(parts, tmp_path):
    with stabdiag.watch(*parts, log_dir=tmp_path) as recording:
        step(*parts, count=3)
        assert "Stable" in recording._repr_html_()
    report = recording.report()
    assert report.path == recording.path / "report.html"
    assert "<html" in report.path.read_text()
    assert "iframe" in report._repr_html_()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what a process has open in /proc")
def test_a_watch_that_has_ended_holds_no_file(tmp_path):
    def opened():
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with stabdiag.watch(model, optimizer, log_dir=tmp_path, every=1):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # runs that earlier tests have read keep their files until then
    first = opened()
    assert [opened() for _ in range(3)] == [first] * 3
