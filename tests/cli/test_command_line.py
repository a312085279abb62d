"""One file a command, no heavy import before its time, and errors in two lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import stabdiag as package
from stabdiag import cli

HEAVY = ("torch", "pandas", "scipy", "plotly", "tensorboard")


def loaded(folder: Path, *words: str) -> set[str]:
    """The heavy packages that `stabdiag *words` had imported at its end."""
    text = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded', *(m for m in {HEAVY!r} if m in sys.modules)))\n"
        "from stabdiag.cli import main\n"
        f"main({list(words)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["explain"],
        ["explain", "loss-spike"],
        ["check", "--help"],
    ],
)
def test_help_and_explain_import_nothing_heavy(tmp_path, words):
    assert loaded(tmp_path, *words) == set()


@pytest.mark.parametrize("command", ["check", "report"])
def test_reading_commands_import_no_torch(tmp_path, record, falling, command):
    run_dir = record("healthy", falling)
    assert "torch" not in loaded(tmp_path, command, str(run_dir))


def test_each_file_is_a_command_that_help_lists(stabdiag):
    files = {path.stem for path in Path(cli.__file__).parent.glob("[!_]*.py")}
    assert {"run", "report", "check", "explain"} <= files
    listed = stabdiag("--help").stdout.partition("Commands:")[2]
    assert {
        line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
    } == files
    context = click.Context(cli.stabdiag)
    assert all(cli.stabdiag.get_command(context, name).help for name in files)


def test_the_version_is_the_packages(stabdiag):
    assert stabdiag("--version").stdout == f"stabdiag, version {package.__version__}\n"


def test_a_mistyped_command_is_corrected(stabdiag):
    done = stabdiag("repotr")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "stabdiag: error: there is no command 'repotr'",
        "stabdiag: hint: did you mean report or replay?",
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("report", "missing"), "there is no missing"),
        (("report",), "no runs here yet"),
        (("check", "."), "there are no runs in ."),
        (("check", "--fail-on", "never"), "never"),
        (("explain", "loss-spikes"), "there is no signature, cause or fix 'loss-spikes'"),
        (("check", "--select", "loss-spikes"), "there is no signature 'loss-spikes'"),
        (("report", "--no-such-option"), "--no-such-option"),
    ],
)
def test_an_error_is_one_line_and_a_hint(stabdiag, words, error):
    done = stabdiag(*words)
    assert (done.returncode, done.stdout) == (2, "")
    first, hint = done.stderr.splitlines()
    assert first.startswith("stabdiag: error: ")
    assert error in first
    assert hint.startswith("stabdiag: hint: ")


def test_debug_shows_the_traceback(stabdiag):
    for words in (("--debug", "report", "missing"), ("report", "--debug", "missing")):
        done = stabdiag(*words)
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert "stabdiag: error: there is no missing" in done.stderr


def test_an_unexpected_error_is_called_a_bug(monkeypatch, capsys):
    def fail(path):
        raise RuntimeError("planted\nin two lines")

    monkeypatch.setattr("stabdiag.store.directory.resolve_run", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "stabdiag: error: RuntimeError: planted in two lines",
        "stabdiag: hint: this is a bug of stabdiag; --debug shows it",
    ]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "stabdiag", "explain"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
