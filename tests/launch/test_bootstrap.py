"""The recorder starts when torch is imported, leaves no trace, and never breaks the import."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import stabdiag

BOOTSTRAP = Path(stabdiag.__file__).parent / "launch" / "bootstrap"


@pytest.fixture
def python(workshop):
    """Runs plain Python with the bootstrap in place, and a stabdiag of the test's own making."""
    run = workshop.folder / "run"
    run.mkdir()
    workshop.write("lib/stabdiag/__init__.py", "")
    workshop.write("lib/stabdiag/launch/__init__.py", "")
    workshop.write("lib/stabdiag/launch/attach.py", "def attach():\n    print('attached')\n")

    def execute(*words, lib="lib", **more):
        folders = [str(BOOTSTRAP), str(workshop.folder / lib)]
        more = {"STABDIAG_RUN": str(run), "STABDIAG_OPTIONS": '{"every": 10}', **more}
        return workshop.plain(sys.executable, *words, PYTHONPATH=os.pathsep.join(folders), **more)

    return execute


def events(workshop):
    path = workshop.folder / "run" / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_it_attaches_once_right_after_torch(workshop, python):
    workshop.write("torch.py", "print('torch')")
    look = "import torch; print('then'); import torch, sys; import importlib; importlib.reload(torch)"
    assert python("-c", look).stdout.split() == ["torch", "attached", "then", "torch"]


def test_looking_for_torch_is_not_importing_it(workshop, python):
    workshop.write("torch.py", "print('torch')")
    look = "import importlib.util; importlib.util.find_spec('torch'); print('found'); import torch"
    assert python("-c", look).stdout.split() == ["found", "torch", "attached"]


def test_without_torch_nothing_happens(workshop, python):
    assert python("-c", "import json").stdout == ""
    assert events(workshop) == []


def test_torch_looks_as_it_would(workshop, python):
    workshop.write("torch/__init__.py", "")
    look = (
        "import torch, sys; print(vars(torch.__loader__), torch.__spec__, sys.meta_path,"
        " torch.__spec__.loader is torch.__loader__)"
    )
    alone = workshop.plain(sys.executable, "-c", look)
    hooked = python("-c", look).stdout.removeprefix("attached\n")
    strip = lambda text: [word for word in text.split() if "0x" not in word]  # noqa: E731
    assert strip(hooked) == strip(alone.stdout)


@pytest.mark.parametrize("error", ["ImportError('no cuda')", "RuntimeError('broken')", "1 / 0"])
def test_a_torch_that_cannot_be_imported_fails_as_it_would_alone(workshop, python, error):
    raising = error if "/" in error else f"raise {error}"
    workshop.write("torch/__init__.py", f"def fail():\n    {raising}\nfail()\n")
    workshop.write("script.py", "import torch\n")
    alone = workshop.plain(sys.executable, "script.py")
    hooked = python("script.py")
    assert hooked.stderr == alone.stderr
    assert hooked.returncode == alone.returncode == 1


def test_a_missing_torch_is_missing_as_ever(workshop, python):
    script = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]\nimport torch\n"
    workshop.write("script.py", script)
    assert python("script.py").stderr == workshop.plain(sys.executable, "script.py").stderr


def test_an_error_in_the_recorder_becomes_an_event(workshop, python):
    workshop.write("torch.py", "")
    workshop.write("lib/stabdiag/launch/attach.py", "def attach():\n    raise ValueError('ouch')\n")
    done = python("-c", "import torch; print('goes on')")
    assert (done.stdout, done.stderr) == ("goes on\n", "")
    (event,) = events(workshop)
    assert event["event"] == "recorder-error"
    assert event["error"] == "ValueError('ouch')"
    assert "in attach" in event["traceback"]


def test_a_python_without_stabdiag_says_so(workshop, python):
    workshop.write("torch.py", "")
    foreign = (
        "import os, sys; sys.path = [p for p in sys.path if not os.path.isdir(p + '/stabdiag')];"
        "import torch; print('goes on')"
    )
    done = python("-c", foreign, lib="empty")
    assert (done.stdout, done.stderr) == ("goes on\n", "")
    (event,) = events(workshop)
    assert event["event"] == "coverage"
    assert f"{sys.executable} has no stabdiag" in event["because"]


def test_a_run_directory_that_is_gone_stops_nothing(workshop, python):
    workshop.write("torch.py", "")
    workshop.write("lib/stabdiag/launch/attach.py", "raise ValueError('ouch')\n")
    done = python("-c", "import torch; print('goes on')", STABDIAG_RUN=str(workshop.folder / "gone"))
    assert (done.stdout, done.stderr) == ("goes on\n", "")


def test_compile_workers_are_left_alone(workshop, python):
    workshop.write("torch.py", "")
    worker = workshop.write("compile_worker/__main__.py", "import torch")
    assert python(str(worker)).stdout == ""


def test_the_marks_say_how_far_it_came(workshop, python):
    workshop.write("torch.py", "")
    run = workshop.folder / "run"
    python("-c", "pass")
    assert {path.name for path in run.iterdir()} == {".python"}
    python("-c", "import torch")
    assert {path.name for path in run.iterdir()} == {".python", ".torch"}
