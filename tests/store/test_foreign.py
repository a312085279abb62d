from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.core.run import RunInfo
from stabdiag.store.directory import page_of, resolve_run
from stabdiag.store.follower import Follower
from stabdiag.store.importer import IMPORTERS
from stabdiag.store.info import write_info
from stabdiag.store.reader import load

FILES = ("events.out.tfevents.1.host", "trainer_state.json", "run-x.wandb", "metrics.csv", "metrics.jsonl")


def test_of_several_logs_the_error_says_which_to_name(tmp_path):
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(StabdiagError, match=r"holds 7 logs \(CSV of metrics\)") as error:
        resolve_run(tmp_path)
    assert error.value.hint.startswith("name one: ")
    assert error.value.hint.endswith(" and 2 more")
    assert resolve_run(tmp_path / "a") == tmp_path / "a" / "metrics.csv"


def test_a_run_directory_goes_before_a_log_beside_it(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n")
    (tmp_path / "run").mkdir()
    write_info(tmp_path / "run", RunInfo())
    assert resolve_run(tmp_path) == tmp_path / "run"


def test_hidden_folders_links_and_what_lies_deep_are_not_searched(tmp_path):
    for folder in (".cache", "a/b/c/d/e"):
        (tmp_path / "logs" / folder).mkdir(parents=True)
        (tmp_path / "logs" / folder / "metrics.csv").write_text("step,loss\n1,2\n")
    (tmp_path / "logs" / "itself").symlink_to(tmp_path / "logs")
    with pytest.raises(DamagedRun, match="there are no runs in") as error:
        resolve_run(tmp_path / "logs")
    assert all(importer.title in error.value.hint for importer in IMPORTERS)


def test_a_search_passes_by_what_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "locked.jsonl").write_text("{}")
    (tmp_path / "locked.jsonl").chmod(0)
    (tmp_path / "dangling.csv").symlink_to("nowhere")
    (tmp_path / "one-line.csv").write_bytes(b"x" * 1_000_000)
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n")
    assert resolve_run(tmp_path) == tmp_path / "metrics.csv"


def test_the_page_of_a_log_does_not_go_into_its_folder(tmp_path):
    log = tmp_path / "out <b>&" / "../../x" / "trainer_state.json"
    assert page_of(log) == Path(page_of(log).name)
    assert page_of(tmp_path / "lightning_logs" / "version_0").name == "stabdiag-lightning_logs-version_0.html"
    write_info(tmp_path, RunInfo())
    assert page_of(tmp_path) == tmp_path / "report.html"


def test_a_log_is_followed_while_it_grows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.touch()
    follower = Follower(path)
    assert (follower.refresh().steps, follower.refresh().notes) == (0, (f"{path} holds no numbers",))
    path.write_text('{"step": 1, "loss": 2}\n')
    first = follower.refresh()
    assert follower.refresh() is first
    with path.open("a") as log:
        log.write('{"step": 2, "loss": 1}\n{"ste')
    assert follower.refresh().table("run.loss").steps.tolist() == [1, 2]
    assert first.steps == 2


def test_a_log_of_a_run_that_was_restarted_is_the_last_attempt(tmp_path):
    rows = [*range(0, 100, 10), *range(50, 70, 10)]
    text = "".join(json.dumps({"step": step, "loss": i, "lr": 1.0}) + "\n" for i, step in enumerate(rows))
    (tmp_path / "log.jsonl").write_text(text)
    run = load(tmp_path / "log.jsonl")
    assert run.table("run.loss").first().tolist() == [0, 1, 2, 3, 4, 10, 11]
    assert run.table("run.lr").steps.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert "restarted at step 50" in run.notes[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FILES),
    head=st.sampled_from(["", "step,loss\n1,", '{"log_history": [{', ":W&B"]),
    rest=st.binary(max_size=200),
)
def test_no_bytes_do_more_than_a_clear_error(tmp_path, name, head, rest):
    path = tmp_path / name
    path.write_bytes(head.encode() + rest)
    try:
        diagnose(load(path))
    except StabdiagError:
        return


numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.none(), st.just("nan"), st.integers())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries({"step": st.integers(-2, 60), "loss": numbers, "lr": numbers}), max_size=60
    )
)
def test_any_rows_make_a_run_that_can_be_diagnosed(tmp_path, rows):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    try:
        run = load(path)
    except DamagedRun:
        return
    for data in run.kinds.values():
        assert (np.diff(data.steps) > 0).all()
    assert not [s for s in diagnose(run).skipped if s.because.startswith("failed")]


def test_reading_a_log_imports_no_torch(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n")
    code = "import sys, stabdiag; stabdiag.load('metrics.csv'); print({'torch', 'wandb'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
