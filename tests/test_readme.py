"""What the README says to type works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_console_blocks_succeed(tmp_path):
    commands = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")
    ]
    assert len(commands) >= 5
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for command in commands:
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip() or " check " in command, command


def test_the_python_block_runs_as_it_stands(tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(4, 1)
    names = {
        "torch": torch,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(6)],
    }
    (block,) = blocks("python")
    exec(block, names)
    assert list(tmp_path.glob("runs/*/report.html"))
    assert isinstance(names["run"].findings, list | tuple)


def test_ci_runs_exactly_the_command_that_the_readme_gives_for_the_tests():
    _, command = (block.strip() for block in blocks("bash"))
    assert command.endswith(".venv/bin/pytest")
    assert f"({command})" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_commands_of_the_table_are_those_of_the_command_line():
    from stabdiag.cli import stabdiag

    told = set(re.findall(r"^\| `stabdiag (\w+)", README, flags=re.MULTILINE))
    assert told == set(stabdiag.list_commands(None))


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
