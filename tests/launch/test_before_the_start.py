"""What cannot be started is said in one line and a hint, and nothing is made."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("missing.py",), "there is no missing.py", "TARGET is a script"),
        (("trai",), "there is no trai", "did you mean trai.py?"),
        (("folder",), "folder is a directory", "the script in it"),
        (("-m",), "-m needs a module after it", ""),
        (("-c",), "-c needs a line of code after it", ""),
        (("--evry", "5", "trai.py"), "--evry", "--help"),
        (("--every", "0", "trai.py"), "--every", "--help"),
        (("--set", "no-such.threshold=1", "trai.py"), "there is no signature 'no-such'", ""),
        (("--set", "loss-spike", "trai.py"), "signature.threshold=value", "loss-spike.z=5"),
        (("--name", "../up", "trai.py"), "a run cannot be called", ""),
        ((), "TARGET", "--help"),
    ],
)
def test_a_mistake_is_one_line_and_a_hint(workshop, words, error, hint):
    workshop.write("trai.py", "print('started')")
    (workshop.folder / "folder").mkdir()
    done = workshop.run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    first, *rest = done.stderr.splitlines()
    assert first.startswith("stabdiag: error: ")
    assert error in first
    assert hint in "".join(rest)
    assert len(rest) <= 1
    assert not (workshop.folder / "stabdiag-runs" / "latest").exists()


@pytest.mark.parametrize("folder", ["file/runs", "/proc/runs"])
def test_a_log_directory_that_cannot_be_made_starts_nothing(workshop, folder):
    workshop.write("file", "")
    done = workshop.run("--log-dir", folder, "-c", "print('started')")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2
    assert "no run directory can be made" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_script_that_may_not_be_read_is_named(workshop):
    workshop.write("secret.py", "").chmod(0)
    done = workshop.run("secret.py")
    assert done.returncode == 2
    assert "secret.py cannot be read" in done.stderr


def test_a_file_that_the_system_cannot_execute_is_named(workshop):
    workshop.write("torn", "\x7fELF").chmod(0o755)
    done = workshop.run("./torn")
    assert done.returncode == 2
    assert done.stderr.startswith("stabdiag: error: ./torn cannot be executed: ")


def test_runs_of_the_same_second_get_directories_of_their_own(workshop):
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: workshop.run("-c", "pass"), range(4)))
    assert [d.returncode for d in done] == [0] * 4
    made = [path for path in (workshop.folder / "stabdiag-runs").iterdir() if path.name != "latest"]
    assert len(made) == 4
    assert all((path / "findings.json").exists() for path in made)


def test_a_name_is_the_run_directorys_own_and_taken_once(workshop):
    assert workshop.run("--name", "first", "-c", "pass").returncode == 0
    assert workshop.run_directory().name == "first"
    again = workshop.run("--name", "first", "-c", "print('started')")
    assert (again.returncode, again.stdout) == (2, "")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("train.py", "--lr", "1"), "train"),
        (("-m", "pkg.train"), "train"),
        (("-mpkg.train"), "train"),
        (("-c", "pass"), "code"),
        (("torchrun", "--nproc-per-node", "2", "src/train.py"), "train"),
        (("make", "train"), "make"),
    ],
)
def test_a_run_is_named_after_the_script(words, name):
    from stabdiag.launch.target import Target

    words = (words,) if isinstance(words, str) else words
    assert Target(words, sys.executable, words).name == name
