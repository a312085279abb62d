from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

STABDIAG = (sys.executable, "-m", "stabdiag")
LOST = """
import os, sys, torch
torch.set_num_threads(1)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=float("nan"))
for _ in range(12):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
"""


@dataclass
class Workshop:
    """A folder to run targets in, with and without stabdiag."""

    folder: Path

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write_lost(self, end: str = "") -> Path:
        """`train.py`: twelve steps, lost at the first; then `end`."""
        return self.write("train.py", f"{LOST}{end}\n")

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "110", **more}

    def run(self, *words: str, stdin: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return self.plain(*STABDIAG, "run", "--no-report", *words, stdin=stdin, **more)

    def plain(self, *words: str, stdin: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.folder, env=self.environment(**more), input=stdin,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """In the background; both streams piped."""
        return subprocess.Popen(
            [*STABDIAG, "run", "--no-report", *words], cwd=self.folder, env=self.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run_directory(self) -> Path:
        return (self.folder / "stabdiag-runs" / "latest").resolve()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def wait_for() -> Callable[[Path], None]:
    """Waits until a file is there, whole: targets say by one that they are ready."""

    def wait(path: Path) -> None:
        deadline = time.monotonic() + 30
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} never came"
            time.sleep(0.02)

    return wait


COUNTING = f"""
import pathlib, signal, sys, time
seen = []
def note(number, frame):
    seen.append(number)
for number in ({signal.SIGINT.value}, {signal.SIGTERM.value}, {signal.SIGUSR1.value}):
    signal.signal(number, note)
pathlib.Path("ready").touch()
while not seen:
    time.sleep(0.02)
time.sleep(0.5)
print(*seen)
"""
"""A target that says which signals reached it, once one did."""


@pytest.fixture
def counting(workshop: Workshop) -> str:
    workshop.write("counting.py", COUNTING)
    return "counting.py"
