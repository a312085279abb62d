"""The logs of other tools on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


@pytest.fixture
def logged(tmp_path):
    """Writes a TensorBoard folder of a loss, a learning rate and a gradient norm."""

    def write(losses: np.ndarray, every: int = 1):
        writer = EventFileWriter(str(tmp_path / "logs"))
        for i, loss in enumerate(losses.tolist()):
            numbers = {"train/loss": loss, "train/learning_rate": 1e-3, "train/grad_norm": 1 + 0.1 * (i % 7)}
            values = [Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
            step = (i + 1) * every
            writer.add_event(Event(step=step, wall_time=1e9 + step, summary=Summary(value=values)))
        writer.close()
        return tmp_path / "logs"

    return write


@pytest.mark.parametrize("every", [1, 10])
def test_a_spike_that_was_planted_in_a_tensorboard_folder_is_named(
    stabdiag, logged, falling, tmp_path, every
):
    losses = falling.copy()
    losses[200:206] += np.linspace(3, 1, 6)
    folder = logged(losses, every)
    before = sorted(folder.rglob("*"))
    done = stabdiag("report", "logs")
    assert done.returncode == 0
    assert "At risk: the loss jumps and comes back, since step" in done.stdout
    assert f"step {200 * every + every:,}" in done.stdout
    assert "signatures skipped: activation-outliers" in done.stdout
    (page,) = tmp_path.glob("*.html")
    assert f"stabdiag: wrote {page.name}\n" == done.stderr
    assert "loss-spike" in page.read_text()
    assert sorted(folder.rglob("*")) == before
    told = stabdiag("check", "logs")
    assert (told.returncode, told.stdout.split()[:2]) == (1, ["warning", "loss-spike"])


@pytest.mark.parametrize("every", [1, 10, 500])
def test_a_healthy_log_is_stable_and_passes(stabdiag, logged, falling, every):
    logged(falling, every)
    report = json.loads(stabdiag("report", "logs", "--format", "json").stdout)
    assert report["verdict"] == "stable"
    assert report["run"]["duration_s"] == pytest.approx(299 * every)
    assert stabdiag("check", "logs").returncode == 0


def test_a_loss_that_becomes_nan_is_a_failure(stabdiag, tmp_path, falling):
    rows = [{"step": i, "loss": float(loss) if i < 250 else float("nan")} for i, loss in enumerate(falling)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = json.loads(stabdiag("report", "m.jsonl", "--format", "json").stdout)
    assert (report["verdict"], report["run"]["duration_s"]) == ("failed", None)
    assert report["findings"][0]["signature"] == "nonfinite-origin"
    assert report["findings"][0]["onset_step"] == 250


def test_numbers_of_other_names_are_mapped(stabdiag, tmp_path, diverging):
    (tmp_path / "m.csv").write_text("step,energy\n" + "".join(f"{i},{e}\n" for i, e in enumerate(diverging)))
    assert "--map THEIRS=OURS" in stabdiag("check", "m.csv").stderr
    done = stabdiag("check", "m.csv", "--map", "energy=loss")
    assert (done.returncode, done.stdout.split()[:2]) == (1, ["critical", "loss-divergence"])
    assert "no series 'run.los'" in stabdiag("report", "m.csv", "--map", "energy=run.los").stderr


def test_a_mapping_of_a_run_directory_is_an_error(stabdiag, record, falling):
    record("healthy", falling)
    done = stabdiag("report", "--map", "a=loss")
    assert done.returncode == 2
    assert "--map is for the logs of other tools" in done.stderr


def test_names_in_a_log_are_shown_and_not_obeyed(stabdiag, tmp_path, falling):
    hostile = "<script>alert(1)</script>\x1b[31m\u202e../../etc" + "x" * 100_000
    rows = [{"step": i, "loss": float(loss), hostile: 1.0} for i, loss in enumerate(falling[:60])]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = stabdiag("report", "m.jsonl")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert len(done.stdout) < 10_000
    page = next(tmp_path.glob("*.html")).read_text()
    assert "<script>alert(1)" not in page
    (tmp_path / "m.jsonl").write_text(json.dumps({"step": 1, hostile: 1.0}))
    refused = stabdiag("report", "m.jsonl")
    assert refused.returncode == 2
    assert "\x1b" not in refused.stderr
    assert len(refused.stderr) < 1000
