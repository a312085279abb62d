"""Signals reach the target once, the supervisor outlives it, and the summary still comes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time

import pytest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_signal_to_the_supervisor_alone_is_forwarded_once(workshop, counting, wait_for, number):
    process = workshop.start(counting)
    wait_for(workshop.folder / "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert out == f"{number.value}\n"
    assert process.returncode == 0
    assert "no process trained: the target ended with status 0" in err


def test_an_unhandled_signal_ends_both_and_the_summary_comes(workshop, wait_for):
    text = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(60)"
    process = workshop.start("-c", text)
    wait_for(workshop.folder / "ready")
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert err.endswith("stabdiag: no process trained: the target was killed by SIGTERM\n")
    info = json.loads((workshop.run_directory() / "run.json").read_text())
    assert (info["signal"], info["exit_status"]) == ("SIGTERM", None)


def in_terminal(workshop, words, keys, ready):
    """Runs stabdiag as the leader of a terminal's session, types `keys` when `ready` exists; gives the
    status as os.wait gives it, and what the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(workshop.folder)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "stabdiag", "run", "--no-report", *words],
            workshop.environment(),
        )
    shown, typed, deadline = b"", False, time.monotonic() + 40
    while time.monotonic() < deadline:
        if not typed and ready.exists():
            os.write(terminal, keys)
            typed = True
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # Linux says by EIO that the last process has closed it.
                break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode().replace("\r\n", "\n")


def test_ctrl_c_reaches_the_target_exactly_once(workshop, counting):
    status, shown = in_terminal(workshop, [counting], b"\x03", workshop.folder / "ready")
    assert f"\n{signal.SIGINT.value}\n" in shown.replace("^C", "^C\n")
    assert status == 0
    assert "no process trained: the target ended with status 0" in shown


def test_ctrl_c_that_the_target_does_not_handle_ends_as_python_ends(workshop):
    workshop.write("sleeps.py", "import pathlib, time\npathlib.Path('ready').touch()\ntime.sleep(60)\n")
    status, shown = in_terminal(workshop, ["sleeps.py"], b"\x03", workshop.folder / "ready")
    assert status == -signal.SIGINT
    assert shown.count("Traceback") == 1
    assert "KeyboardInterrupt" in shown
    assert shown.rstrip().endswith("no process trained: the target was killed by SIGINT")


def test_the_target_keeps_the_terminal(workshop):
    workshop.write(
        "asks.py",
        "import os, pathlib\npathlib.Path('ready').touch()\n"
        "print([os.isatty(n) for n in range(3)], os.tcgetpgrp(0) == os.getpgrp(), input()[::-1])\n",
    )
    status, shown = in_terminal(workshop, ["asks.py"], b"abc\n", workshop.folder / "ready")
    assert status == 0
    assert "[True, True, True] True cba" in shown
