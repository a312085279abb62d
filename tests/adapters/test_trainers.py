"""The callbacks in their real hosts: accumulation, bfloat16 autocast, clipping, evaluation, two processes."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import stabdiag
from stabdiag.core.errors import StabdiagError
from stabdiag.render.progress import Length, planned_length

HOSTS = ("transformers", "lightning", "accelerate")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
RECORDED = ("-m", "stabdiag", "run", "-q", "--no-report")
LOGGERS = {"lightning": "lightning.pytorch.stabdiag"}
pytestmark = pytest.mark.slow


@pytest.fixture(params=HOSTS)
def host(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stabdiag.adapters.hosted._told", set())
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def world(host):
    return importlib.import_module(f"with_{host}")


@pytest.fixture
def callback(host):
    adapter = importlib.import_module(f"stabdiag.adapters.{host}")
    return adapter.StabdiagTracker if host == "accelerate" else adapter.StabdiagCallback


def test_training_is_the_same_to_the_bit_and_is_recorded_as_watch_does(world, callback, closed):
    assert world.train([callback(every=2)]) == world.train([])
    run = closed()
    assert run.info.exit_status == 0
    assert run.steps == run.table("run.loss").first().size == world.STEPS
    assert np.isfinite(run.table("run.loss").first()).all()
    assert (run.table("run.micro_batches").first() == 2).all()
    assert (run.table("run.clipped_grad_norm").first() <= 0.1 + 1e-6).all()
    assert (run.table("run.grad_norm").first() > 0.1).any()
    assert run.fact("loss", "function") == "cross-entropy"
    assert [event.data["trainable"] for event in run.events_of("model")] == [
        sum(site.size for site in run.sites("weight"))
    ]
    assert np.isfinite(run.table("batch.fingerprint").values).any()
    assert stabdiag.report(run).path.exists()


def test_an_evaluation_inside_training_is_one_and_no_step(host, world, callback, closed):
    world.train([callback(every=2)])
    run = closed()
    evaluated = run.table("evaluation.loss")
    assert np.isfinite(evaluated.first()).sum() == (1 if host == "accelerate" else 2)
    assert run.steps == world.STEPS


def test_findings_are_logged_with_the_hosts_logger_and_the_command_that_reports_them(
    host, world, callback, lines
):
    told = lines(LOGGERS.get(host, f"{host}.stabdiag"))
    lost = {"learning_rate": 1e30} if host == "transformers" else {"lr": 1e30}
    world.train([callback(every=1)], **lost)
    assert told[0].startswith("INFO stabdiag: recording into stabdiag-runs/")
    found = [line for line in told if line.startswith("WARNING stabdiag: critical: ")]
    assert found
    assert " since step " in found[0]
    assert "Next: stabdiag report " in told[-1]
    assert all("\n" not in line for line in told)


def test_a_training_that_was_well_ends_with_a_line_however_quiet_the_host_is(host, world, callback, capsys):
    world.train([callback(every=4)])
    said = [line for line in capsys.readouterr().err.splitlines() if "Next: stabdiag report " in line]
    if host == "lightning":  # which shows what its loggers are told
        assert said == []
    else:
        (line,) = said
        assert line.startswith("stabdiag: Stable: no instability in 8 steps. Next: ")


def test_the_host_says_how_many_steps_it_will_take(host, world, callback, closed):
    world.train([callback(every=4)])
    planned = planned_length(closed())
    assert planned == (None if host == "accelerate" else Length(world.STEPS, "Trainer"))


def test_each_training_of_one_callback_is_a_run_of_its_own(world, callback, tmp_path):
    hook = callback(every=4)
    for _ in range(2):
        world.train([hook])
    runs = [path for path in (tmp_path / "stabdiag-runs").iterdir() if path.name != "latest"]
    assert len(runs) == 2
    assert [stabdiag.load(path).steps for path in runs] == [world.STEPS] * 2


def test_a_run_directory_that_cannot_be_made_is_a_warning_and_training_goes_on(
    host, world, callback, lines, tmp_path
):
    (tmp_path / "file").touch()
    told = lines(LOGGERS.get(host, f"{host}.stabdiag"))
    assert world.train([callback(log_dir="file")]) == world.train([])
    assert len(told) == 1
    assert "is not recorded" in told[0]


def test_a_cadence_that_is_none_is_told_where_the_callback_is_made(callback):
    with pytest.raises(StabdiagError):
        callback(budget="much")


def test_a_recording_that_is_open_is_not_doubled_and_that_is_said_once(
    host, world, callback, lines, tmp_path, closed
):
    told = lines(LOGGERS.get(host, f"{host}.stabdiag"))
    with stabdiag.watch(log_dir=tmp_path / "stabdiag-runs"):
        for _ in range(2):
            world.train([callback(every=2)])
    assert [line for line in told if "not recorded twice" in line] == told[:1]
    assert closed().steps == 2 * world.STEPS


def test_an_error_in_training_stays_the_users_own_and_closes_the_run(host, python, closed):
    done = python(f"with_{host}.py", "fails")
    assert done.returncode == 1
    assert "ValueError: a damaged sample" in done.stderr
    assert "stabdiag/" not in done.stderr.partition("Traceback")[2].partition("ValueError")[0]
    run = closed()
    assert run.info.exit_status == 1
    assert run.steps == 2
    (raised,) = run.events_of("exception")
    assert (raised.data["type"], raised.data["message"]) == ("ValueError", "a damaged sample")


def test_under_stabdiag_run_nothing_is_recorded_twice_and_that_is_said_once(host, python, closed):
    done = python(*RECORDED, "--every", "2", f"with_{host}.py", "once")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("not recorded twice") == 1
    assert closed().steps == 8


def test_two_processes_share_a_run_directory_and_train_the_same(host, python, closed):
    launch = () if host == "lightning" else TORCHRUN
    done = python(*launch, f"with_{host}.py", "both")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same") == 2, done.stdout
    assert done.stderr.count("Next: stabdiag report ") == 1
    run = closed()
    assert run.info.processes == run.info.world_size == 2
    assert run.steps == (4 if host == "accelerate" else 8)  # which deals the batches out
    assert (run.table("replica.differs").values == 0).all()
