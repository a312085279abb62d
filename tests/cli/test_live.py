"""`stabdiag live` on a terminal, in a pipe, and when it is left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

STABDIAG = (sys.executable, "-m", "stabdiag")
ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A terminal of a size, in which a command runs; `text` is all that it wrote."""

    def __init__(self, folder, *words, size=(80, 24), **environment):
        self.master, self.slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.slave)
        plain = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*STABDIAG, *words], stdin=self.slave, stdout=self.slave, stderr=self.slave, cwd=folder,
            env={**plain, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.text = ""

    def resize(self, columns, rows):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        data = b""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], min(left, 0.05))[0]:
                data += os.read(self.master, 65536)
            elif self.process.poll() is not None:
                break
        self.text += data.decode("utf-8", "replace")
        return data.decode("utf-8", "replace")

    def until(self, wanted, seconds=30):
        end = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < end, f"{wanted!r} never came: {self.text[-2000:]!r}"
            self.read(0.1)

    def ended(self):
        end = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < end, "it goes on"
            self.read(0.1)
        self.read(0.2)
        return self.process.returncode

    @property
    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for end in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_(*words, **more):
        opened.append(Terminal(tmp_path, *words, **more))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def frames(text):
    """What was drawn between two moves of the cursor to the corner."""
    return [CONTROL.sub("", part) for part in text.split("\x1b[H")[1:]]


def test_a_finished_run_is_shown_once_and_the_terminal_kept(terminal, record, falling):
    record("done", falling)
    shown = terminal("live")
    assert shown.ended() == 0
    assert ENTER not in shown.text
    assert "done" in shown.text
    assert "finished" in shown.text
    assert "Findings: none" in shown.text


def test_a_run_that_goes_on_is_redrawn_and_ctrl_c_leaves_all_as_it_was(terminal, record, falling):
    record("goes-on", falling, ended=None, exit_status=None, host="elsewhere")
    shown = terminal("live")
    shown.until("loss")
    before = len(frames(shown.text))
    shown.read(3.0)
    assert 1 <= len(frames(shown.text)) - before <= 7  # twice a second, at most
    os.write(shown.master, b"\x03")
    assert shown.ended() == 0
    assert shown.text.rindex(LEAVE) > shown.text.rindex(ENTER)
    assert shown.text.rindex(SHOW_CURSOR) > shown.text.rindex(ENTER)
    assert shown.restored
    assert "Traceback" not in shown.text


def test_a_resize_is_followed(terminal, record, falling):
    record("goes-on", falling, ended=None, exit_status=None, host="elsewhere")
    shown = terminal("live", COLUMNS="100", LINES="40")  # which a shell may export, and not keep up to date
    shown.until("loss")
    shown.resize(44, 9)
    shown.read(1.5)
    new = frames(shown.read(1.2))
    assert new
    lines = new[-1].split("\r\n")
    assert len(lines) <= 9
    assert max(map(len, lines)) <= 44
    assert "loss" in new[-1]


def test_one_that_is_not_there_yet_is_waited_for(terminal, record, falling):
    shown = terminal("live", "stabdiag-runs/later")
    shown.until("waiting for its first step")
    record("later", falling)
    shown.until("finished")
    assert shown.ended() == 0
    assert LEAVE in shown.text


def test_a_signal_that_ends_it_restores_the_terminal(terminal):
    shown = terminal("live")
    shown.until("waiting")
    shown.process.send_signal(signal.SIGTERM)
    assert shown.ended() == 128 + signal.SIGTERM
    assert shown.text.rindex(LEAVE) > shown.text.rindex(ENTER)
    assert shown.restored


def test_without_color_there_is_none(terminal, record, falling):
    record("done", falling)
    plain = terminal("live", NO_COLOR="1")
    assert plain.ended() == 0
    assert "\x1b[" not in plain.text
    colored = terminal("live")
    assert colored.ended() == 0
    assert "\x1b[" in colored.text


def test_a_dumb_terminal_gets_plain_lines(terminal, record, falling):
    record("done", falling)
    shown = terminal("live", TERM="dumb")
    assert shown.ended() == 0
    assert "\x1b" not in shown.text
    assert "finished" in shown.text


def test_a_pipe_gets_lines_as_findings_come(stabdiag, record, diverging):
    record("lost", diverging)
    done = stabdiag("live")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "finished" in done.stdout
    assert "loss-divergence" in done.stdout


def test_a_pipe_of_a_run_that_goes_on_gets_a_line_and_can_be_left(tmp_path, record, diverging):
    record("goes-on", diverging, ended=None, exit_status=None, host="elsewhere")
    process = subprocess.Popen(
        [*STABDIAG, "live"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert any(re.match(r"step 299: \w+: loss-divergence since step \d+: ", line) for line in (*lines, out))
    assert any(re.match(r"step 299, loss \d", line) for line in (*lines, *out.splitlines()))
    assert err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("live", "a-file"), "a-file is a file, not a run directory"),
        (("live", "--dashboard", "helth"), "there is no dashboard 'helth'"),
        (("live", "--metrics-port", "70000"), "Invalid value for '--metrics-port'"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_hint(stabdiag, tmp_path, words, message):
    (tmp_path / "a-file").write_text("no run")
    done = stabdiag(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "stabdiag: hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_it_imports_no_torch(record, falling, tmp_path):
    record("done", falling)
    code = "import sys, stabdiag.cli as c\ntry: c.main(['live'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("False\n")
