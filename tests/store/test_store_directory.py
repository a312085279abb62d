from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stabdiag.core.errors import StabdiagError
from stabdiag.core.run import RunInfo
from stabdiag.store.directory import create_run_directory, resolve_run
from stabdiag.store.info import write_info


@pytest.fixture
def made(tmp_path):
    """Makes a run directory with a run in it."""

    def make(name: str = "train", log_dir: Path = tmp_path / "runs") -> Path:
        run_dir = create_run_directory(log_dir, name)
        write_info(run_dir, RunInfo())
        return run_dir

    return make


def test_a_run_directory_has_the_name_and_the_time(tmp_path):
    run_dir = create_run_directory(tmp_path / "deep" / "runs", "train")
    assert re.fullmatch(r"train-\d{8}-\d{6}", run_dir.name)
    assert list(run_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a b/c", "a-b-c"), ("..", "run"), ("", "run"), ("naïve", "naïve"), ("x" * 400, "x" * 100)],
)
def test_a_name_that_no_folder_can_have_is_made_one(tmp_path, name, stem):
    run_dir = create_run_directory(tmp_path, name)
    assert run_dir.parent == tmp_path
    assert run_dir.name[:-16] == stem


def test_runs_that_start_at_once_get_a_directory_each(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_run_directory(tmp_path, "train"), range(40)))
    assert len(set(made)) == 40


def test_an_exact_name_is_taken_as_it_is_and_once(tmp_path):
    assert create_run_directory(tmp_path, "warmup 2k", exact=True) == tmp_path / "warmup 2k"
    with pytest.raises(StabdiagError, match=r"there is a run .*warmup 2k already"):
        create_run_directory(tmp_path, "warmup 2k", exact=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", "latest"])
def test_an_exact_name_that_is_no_name_is_a_clear_error(tmp_path, name):
    with pytest.raises(StabdiagError, match="a run cannot be called"):
        create_run_directory(tmp_path, name, exact=True)
    assert list(tmp_path.iterdir()) == []


def test_a_log_directory_that_cannot_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    for log_dir in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/stabdiag-runs")):
        with pytest.raises(StabdiagError, match="no run directory can be made") as error:
            create_run_directory(log_dir, "train")
        assert error.value.hint


def test_a_folder_that_is_full_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StabdiagError, match="No space left on device"):
        create_run_directory(tmp_path, "train")
    assert list(tmp_path.iterdir()) == []


def test_latest_is_a_relative_link_to_the_newest(tmp_path, made):
    made(), made("other")
    newest = made()
    pointer = tmp_path / "runs" / "latest"
    assert pointer.readlink() == Path(newest.name)
    assert sorted(p.name for p in pointer.parent.iterdir() if p.name.startswith(".")) == []
    assert resolve_run(tmp_path / "runs") == resolve_run(pointer) == newest


def test_latest_is_a_text_where_links_are_impossible(tmp_path, made, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    made()
    newest = made("other")
    pointer = tmp_path / "runs" / "latest"
    assert pointer.read_text() == newest.name + "\n"
    assert resolve_run(tmp_path / "runs") == resolve_run(pointer) == newest


def test_a_run_that_latest_pointed_to_may_be_removed(tmp_path, made):
    first, newest = made(), made()
    (newest / "run.json").unlink()
    newest.rmdir()
    assert resolve_run(tmp_path / "runs") == first


def test_a_run_directory_is_itself_and_none_is_the_latest_of_all(tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = made(log_dir=Path("stabdiag-runs"))
    assert resolve_run(run_dir) == run_dir
    assert resolve_run() == run_dir


def test_where_no_run_is_the_error_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for path, message in [
        (None, "no runs here yet"),
        (Path("absent"), "there is no absent"),
        (Path("empty"), "there are no runs in empty"),
        (Path("file"), "file is a file, not a run directory"),
    ]:
        with pytest.raises(StabdiagError) as error:
            resolve_run(path)
        assert error.value.message == message
        assert error.value.hint
