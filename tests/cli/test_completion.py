"""What a shell completes: asked as the shells ask, and through bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES
from stabdiag.cli import _names
from stabdiag.intervene.intervention import INTERVENTIONS
from stabdiag.render.dashboard import dashboards
from stabdiag.zoo.fault import FAULTS


@pytest.fixture
def completed(tmp_path):
    """What `stabdiag <typed>` is completed to; the last word is what is typed of the next."""

    def ask(typed: str) -> list[str]:
        words = f"stabdiag {typed}"
        asked = {
            "_STABDIAG_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = subprocess.run(
            [sys.executable, "-m", "stabdiag"],
            capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **asked},
        )  # fmt: skip
        assert done.stderr == ""
        return [
            line.partition(",")[2] if line.startswith("plain,") else line
            for line in done.stdout.split("\n")
            if line
        ]

    return ask


@pytest.mark.parametrize(
    "catalogue", [SIGNATURES, CAUSES, FIXES, INTERVENTIONS, FAULTS], ids=lambda c: c.what
)
def test_every_entry_is_called_like_its_file(catalogue):
    folder = catalogue.package.removeprefix("stabdiag.").replace(".", "/")
    assert _names.entries(folder) == [entry.id for entry in catalogue]


def test_dashboards_are_those_that_come_with_it():
    assert _names.dashboards() == sorted(dashboards())


def test_thresholds_are_those_that_the_analysis_knows():
    assert {entry.id: list(entry.thresholds) for entry in SIGNATURES} == {
        entry.id: _names.thresholds(entry.id) for entry in SIGNATURES
    }
    assert _names.thresholds("no-such") == _names.thresholds("../causes/label_noise") == []


@pytest.mark.parametrize(
    ("typed", "among"),
    [
        ("rep", {"report", "replay"}),
        ("explain loss-sp", {"loss-spike"}),
        ("explain lower-be", {"lower-beta2"}),
        ("check --select attention-u", {"attention-uniform"}),
        ("report --ignore loss-d", {"loss-divergence"}),
        ("report --set loss-", {"loss-spike.", "loss-plateau."}),
        ("report --set loss-spike.z", {"loss-spike.z="}),
        ("report --dashboard a", {"attention"}),
        ("run --apply lower-l", {"lower-learning-rate"}),
        ("demo lr-too-h", {"lr-too-high"}),
        ("--compl", {"--completion"}),
        ("run tr", {"file,tr"}),
    ],
)
def test_names_are_completed(completed, typed, among):
    found = completed(typed)
    assert among <= set(found)
    assert all(word.removeprefix("file,").startswith(typed.split()[-1]) for word in found)


def test_what_belongs_to_the_target_is_the_targets(completed):
    assert completed("run train.py --") == []
    assert "--every" in completed("run --")


def test_nothing_is_said_where_nothing_is_known(completed):
    assert completed("repotr x") == []


def test_runs_are_completed_the_latest_first_and_else_what_the_shell_knows(
    completed, record, falling, tmp_path
):
    for name, age in (("older", 1000), ("newer", 2000)):
        os.utime(record(name, falling), (age, age))
    assert completed("report ")[1:] == ["stabdiag-runs/newer", "stabdiag-runs/older"]
    assert completed("check stabdiag-runs/o") == ["stabdiag-runs/older"]
    assert completed("report lo") == ["file,lo"]


@pytest.mark.parametrize("name", ["a;rm -rf b", "$(touch gone)", "a\nplain,b", "a b", "`id`"])
def test_a_run_whose_name_would_mean_something_to_a_shell_is_not_offered(
    completed, record, falling, tmp_path, name
):
    record("plain", falling).rename(tmp_path / "stabdiag-runs" / name)
    assert all(word.startswith(("stabdiag-runs/latest", "file,")) for word in completed("report "))


def test_completing_loads_nothing_heavy_and_is_quick(tmp_path):
    asked = {"_STABDIAG_COMPLETE": "bash_complete", "COMP_WORDS": "stabdiag explain loss-", "COMP_CWORD": "2"}
    text = (
        "import atexit, os, sys\n"
        "heavy = ('torch', 'numpy', 'pandas', 'scipy', 'plotly', 'rich')\n"
        "atexit.register(lambda: print(*(m for m in heavy if m in sys.modules), f'{os.times().user:.3f}'))\n"
        "from stabdiag.cli import main\n"
        "main()\n"
    )
    for words in (
        "explain loss-",
        "report --set loss-spike.",
        "report stab",
        "run --apply l",
        "live --dashboard ",
    ):
        asked |= {"COMP_WORDS": f"stabdiag {words}", "COMP_CWORD": str(words.count(" ") + 1)}
        done = subprocess.run(
            [sys.executable, "-c", text],
            capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **asked},
        )  # fmt: skip
        (seconds,) = done.stdout.splitlines()[-1].split()
        assert float(seconds) < 0.2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(stabdiag, shell):
    done = stabdiag("--completion", shell)
    assert done.returncode == 0
    assert f"_STABDIAG_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_with_it(tmp_path, record, falling):
    record("first", falling)
    (tmp_path / "stabdiag").write_text(f'#!/bin/sh\nexec {sys.executable} -m stabdiag "$@"\n')
    (tmp_path / "stabdiag").chmod(0o755)
    script = (
        'eval "$(stabdiag --completion bash)"\n'
        "COMP_WORDS=(stabdiag report stab); COMP_CWORD=2\n"
        "$(complete -p stabdiag | sed 's/.*-F \\([^ ]*\\).*/\\1/') stabdiag stab report\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert "stabdiag-runs/first" in done.stdout.split(), done.stderr
