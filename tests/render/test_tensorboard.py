from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from stabdiag.core.errors import StabdiagError
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.dashboard import load_dashboard
from stabdiag.render.tensorboard import Board, write_tensorboard

HEALTH = load_dashboard("health")


def read(folder):
    everything = {"scalars": 0, "tensors": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=everything)
    accumulator.Reload()
    return accumulator


def curve(accumulator, tag):
    return {event.step: event.value for event in accumulator.Scalars(tag)}


def layout(accumulator):
    tensors = accumulator.Tensors("custom_scalars__config__")
    found = Layout.FromString(tensors[-1].tensor_proto.string_val[0])
    return {
        category.title: {c.title: list(c.multiline.tag) for c in category.chart}
        for category in found.category
    }


def words(accumulator, tag):
    return accumulator.Tensors(tag)[-1].tensor_proto.string_val[0].decode()


@pytest.fixture
def board(failed_run, failed_diagnosis, tmp_path):
    write_tensorboard(failed_run, failed_diagnosis, tmp_path / "board", HEALTH)
    return read(tmp_path / "board")


def test_numbers_come_back_as_they_were_recorded(tmp_path, stable):
    norms = np.array([[1.0, 2.0], [3.0, np.nan]])
    series = {"run.loss": [4.0, np.nan, 2.0], "run.nonfinite": [0.0, 1.0, 0.0], "grad.norm": norms}
    sites = {"grad": [Site("grad", "a.weight"), Site("grad", "b.weight")]}
    run = run_of(series, sites=sites, steps={"grad": [0, 20]})
    write_tensorboard(run, stable(run), tmp_path, HEALTH)
    found = read(tmp_path)
    assert curve(found, "run/loss") == pytest.approx({0: 4.0, 1: np.nan, 2: 2.0}, nan_ok=True)
    assert curve(found, "run/nonfinite") == {1: 1.0}
    assert curve(found, "grad.norm/a.weight") == {0: 1.0, 20: 3.0}
    assert curve(found, "grad.norm/b.weight") == {0: 2.0}


def test_a_long_curve_keeps_its_spike_and_its_nan_among_what_tensorboard_draws(tmp_path, stable):
    loss = np.ones(20_000)
    loss[7_777], loss[15_555] = 50.0, np.nan
    run = run_of({"run.loss": loss, "run.nonfinite": np.isnan(loss).astype(float)})
    write_tensorboard(run, stable(run), tmp_path, HEALTH)
    kept = curve(read(tmp_path), "run/loss")
    assert len(kept) <= 1000
    assert kept[7_777] == 50.0
    assert np.isnan(kept[15_555])


def test_quantiles_are_drawn_as_a_histogram(tmp_path, stable):
    quantiles = {"q001": -3.0, "q01": -2.0, "q50": 0.0, "q99": 2.0, "q999": 3.0}
    series = {f"distribution.{name}": [[value, np.nan]] * 2 for name, value in quantiles.items()}
    run = run_of(series, sites={"distribution": ["fc", "never"]}, steps={"distribution": [0, 100]})
    write_tensorboard(run, stable(run), tmp_path, HEALTH)
    found = read(tmp_path)
    assert "distribution/never" not in found.Tags()["tensors"]
    events = found.Tensors("distribution/fc")
    assert [event.step for event in events] == [0, 100]
    from tensorboard.util.tensor_util import make_ndarray

    buckets = make_ndarray(events[0].tensor_proto)
    assert buckets[:, :2].tolist() == [[-3, -2], [-2, 0], [0, 2], [2, 3]]
    assert buckets[:, 2].sum() == pytest.approx(0.998 * 8192)


def test_the_layout_is_that_of_the_dashboard(board):
    charts = layout(board)
    assert charts["Timeline"] == {"run.loss": [r"^run/loss$"], "run.lr": [r"^run/lr$"]}
    tags = board.Tags()["scalars"]
    for category in charts.values():
        for patterns in category.values():
            assert 0 < len(patterns) <= 10
            assert all(any(re.match(pattern, tag) for tag in tags) for pattern in patterns)


def test_findings_are_text_at_the_step_where_they_began(board, failed_diagnosis):
    assert words(board, "report").startswith("## Failed: ")
    (event,) = board.Tensors("findings/activations-out-of-hand")
    assert event.step == failed_diagnosis.findings[0].onset_step
    told = words(board, "findings/activations-out-of-hand")
    assert told.startswith("**CRITICAL**")
    assert "To change: lower the peak learning rate" in told.replace("\\", "")


def test_writing_again_replaces_what_stabdiag_wrote_and_nothing_else(tmp_path, failed_run, failed_diagnosis):
    other = tmp_path / "events.out.tfevents.1.host"
    other.write_bytes(b"")
    for _ in range(2):
        write_tensorboard(failed_run, failed_diagnosis, tmp_path, HEALTH)
        assert len(list(tmp_path.glob("*tfevents*"))) == 2
    assert other.exists()


def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path, failed_run, failed_diagnosis):
    (tmp_path / "file").write_text("")
    with pytest.raises(StabdiagError, match="cannot write"):
        write_tensorboard(failed_run, failed_diagnosis, tmp_path / "file", HEALTH)


def test_odd_runs_are_written(tmp_path, odd_run, stable):
    write_tensorboard(odd_run, stable(odd_run), tmp_path, HEALTH)
    read(tmp_path)


def test_a_run_that_grows_is_written_once(tmp_path, failed_run, failed_diagnosis):
    board = Board(tmp_path, HEALTH)
    for last in (99, 100, 250):
        board.add(failed_run.window(0, last))
        board.tell(failed_run, failed_diagnosis)
    board.flush()
    found = read(tmp_path)
    # It is of two processes, one of which may be late.
    assert [event.step for event in found.Scalars("run/loss")] == list(range(251 - 64))
    assert len(found.Tensors("report")) == len(found.Tensors("custom_scalars__config__")) == 1
    board.add(failed_run.window(0, 250), ended=True)
    board.tell(failed_run.window(0, 250), failed_diagnosis, ended=True)
    board.close()
    found.Reload()
    assert len(found.Tensors("report")) == len(found.Tensors("custom_scalars__config__")) == 2
    assert [event.step for event in found.Scalars("run/loss")] == list(range(251))


def test_a_look_writes_no_more_than_it_may(tmp_path, failed_run):
    board = Board(tmp_path, HEALTH, most=20_000)
    board.add(failed_run)
    board.close()
    found = read(tmp_path)
    scalars = found.Tags()["scalars"]
    assert sum(len(found.Scalars(tag)) for tag in scalars) < 20_000 + 8 * len(scalars)
    assert max(curve(found, "run/loss").values()) == pytest.approx(
        np.nanmax(failed_run.table("run.loss").first())
    )


@contextmanager
def tensorboard_of(folder):
    """The address of a real TensorBoard, on a port of its own choice."""
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--port",
        "0",
        "--host",
        "127.0.0.1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        lines = iter(process.stderr.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def answer(address, path, ready):
    """What the server says, once its data are loaded."""
    deadline = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"{address}data/plugin/{path}", timeout=20) as response:
            found = json.load(response)
        if ready(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


@pytest.mark.slow
def test_a_real_tensorboard_shows_numbers_layout_histograms_and_text(tmp_path, failed_run, failed_diagnosis):
    write_tensorboard(failed_run, failed_diagnosis, tmp_path / "run", HEALTH)
    with tensorboard_of(tmp_path) as address:
        tags = answer(address, "scalars/tags", lambda found: "run/lr" in found.get("run", {}))
        assert {"run/loss", "run/grad_norm", "grad.norm/wte.weight"} <= set(tags["run"])
        points = answer(address, "scalars/scalars?run=run&tag=run/loss", bool)
        assert [1880, "NaN"] in [[step, value] for _, step, value in points]
        shown = answer(address, "custom_scalars/layout", bool)
        assert shown["category"][0]["title"] == "Timeline"
        drawn = answer(address, "custom_scalars/scalars?run=run&tag=%5Erun%2Floss%24", bool)
        assert list(drawn["tag_to_events"]) == ["run/loss"]
        texts = answer(address, "text/tags", bool)
        assert {"report", "findings/loss-divergence"} <= set(texts["run"])
        (told,) = answer(address, "text/text?run=run&tag=findings/loss-spike", bool)
        assert "<script" not in told["text"]
        assert "nine times its neighbours" in told["text"]
