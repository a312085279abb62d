"""The exit status, the streams and the traceback are the target's own."""

from __future__ import annotations

import signal
import sys

import pytest

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT, signal.SIGABRT]


def ours(stderr):
    return [line for line in stderr.splitlines() if line.startswith("stabdiag: ")]


def theirs(stderr):
    return "".join(line for line in stderr.splitlines(True) if not line.startswith("stabdiag: "))


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_is_the_targets(workshop, status):
    assert workshop.run("-c", f"import sys; sys.exit({status})").returncode == status


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_death_by_a_signal_is_passed_on(workshop, number):
    done = workshop.run("-c", f"import os; os.kill(os.getpid(), {number.value})")
    assert done.returncode == -number
    assert f"was killed by {number.name}" in done.stderr


def test_the_end_stands_in_the_run_directory(workshop):
    from stabdiag.store.findings import read_findings
    from stabdiag.store.reader import load

    workshop.run("-c", "import os; os.kill(os.getpid(), 9)")
    run = load(workshop.run_directory())
    assert (run.info.exit_status, run.info.signal) == (None, "SIGKILL")
    assert run.info.ended >= run.info.started
    assert run.fact("exit", "signal") == "SIGKILL"
    assert "out of memory?" in run.fact("exit", "message")
    assert read_findings(workshop.run_directory()).verdict == "failed"


def test_a_traceback_is_byte_for_byte_that_of_plain_python(workshop):
    workshop.write("fails.py", "def inner():\n    return {}['é']\n\ninner()\n")
    plain = workshop.plain(sys.executable, "fails.py")
    done = workshop.run("fails.py")
    assert done.returncode == plain.returncode == 1
    assert theirs(done.stderr) == plain.stderr
    assert done.stdout == plain.stdout


def test_a_syntax_error_is_reported_by_python_itself(workshop):
    workshop.write("broken.py", "def broken(:\n    pass\n")
    done = workshop.run("broken.py")
    assert theirs(done.stderr) == workshop.plain(sys.executable, "broken.py").stderr
    assert "SyntaxError" in done.stderr
    assert ours(done.stderr)[1:] == ["stabdiag: no process trained: the target ended with status 1"]


def test_quiet_says_nothing(workshop):
    done = workshop.run("--quiet", "-c", "print('hello')")
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_all_of_ours_goes_to_stderr(workshop):
    done = workshop.run("-c", "print('hello')")
    assert done.stdout == "hello\n"
    assert theirs(done.stderr) == ""
    assert len(ours(done.stderr)) >= 2


def test_a_run_is_completed_although_nobody_reads_what_we_say(workshop):
    command = f"{sys.executable} -m stabdiag run --no-report -c 'import sys; sys.exit(3)' 2>/dev/full"
    assert workshop.plain("sh", "-c", command).returncode == 3
    assert (workshop.run_directory() / "findings.json").exists()


@pytest.mark.parametrize(
    ("words", "because"),
    [
        ((sys.executable, "-I", "-c", "pass"), "`python -I`"),
        (("-c", "pass"), "no process imported torch"),
    ],
    ids=["isolated", "without torch"],
)
def test_the_closing_line_says_why_nothing_was_recorded(workshop, words, because):
    done = workshop.run(*words)
    assert done.returncode == 0
    assert "no process trained: the target ended with status 0" in done.stderr
    assert because in ours(done.stderr)[-1]
    assert not [path.name for path in workshop.run_directory().iterdir() if path.name.startswith(".")]


def test_a_failing_report_costs_one_line(workshop):
    text = "import os, pathlib; (pathlib.Path(os.environ['STABDIAG_RUN']) / 'findings.json').mkdir()"
    done = workshop.run("-c", text)
    assert done.returncode == 0
    (line,) = ours(done.stderr)[1:]
    assert "what was recorded is kept" in line
    assert "Traceback" not in done.stderr
