"""The examples run as they are, and under `stabdiag run` they are found to be stable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT, check=False)


def test_there_are_examples():
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_plain(script, tmp_path):
    done = run(EXAMPLES / script, "--steps", "3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 2: " in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_is_stable_over_three_seeds(script, tmp_path):
    def recorded(seed: int) -> dict:
        folder = tmp_path / str(seed)
        folder.mkdir()
        done = run("-m", "stabdiag", "run", "--no-report", EXAMPLES / script, "--seed", seed, folder=folder)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "stabdiag-runs" / "latest" / "findings.json").read_text())

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(recorded, range(3)))
    loud = [f["message"] for report in reports for f in report["findings"] if f["severity"] != "info"]
    assert loud == []
    assert [report["verdict"] for report in reports] == ["stable"] * 3
    assert all(report["run"]["steps"] > 20 for report in reports)


def test_the_notebook_finds_its_fault_and_shows_the_report(tmp_path):
    notebook = nbformat.read(EXAMPLES / "first_tour.ipynb", as_version=4)
    # The kernel of this very environment, whatever kernels are installed for the user.
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    findings, report = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"][-2:]
    assert "critical" in "".join(output.get("text", "") for output in findings)
    assert any("text/html" in output.get("data", {}) for output in report)
    assert list(tmp_path.glob("stabdiag-runs/*/run.json"))
