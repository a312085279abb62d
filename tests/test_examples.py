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


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Runs a notebook in a folder of the test's own, and gives the outputs of its code cells."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

    def run(name: str) -> list[list]:
        notebook = nbformat.read(EXAMPLES / name, as_version=4)
        # The kernel of this very environment, whatever kernels are installed for the user.
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()
        return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]

    return run


def shown(outputs: list) -> str:
    """All that a cell shows, as HTML where there is any."""
    texts = [output.get("text") or output["data"].get("text/html", "") for output in outputs]
    return "".join(map("".join, texts))


def test_the_first_tour_shows_a_failed_cell_and_a_healthy_block(executed, tmp_path):
    *_, magic, findings, report = executed("first_tour.ipynb")
    assert "The learning rate is too high" in shown(magic)
    assert "<iframe" in shown(magic)
    assert "No findings" in shown(findings)
    assert "<iframe" in shown(report)
    assert len(list(tmp_path.glob("stabdiag-runs/watch-*/run.json"))) == 2


def test_the_spike_is_found_explained_and_mended(executed):
    *_, recorded, found, explained, evidence, again, compared = executed("loss_spike.ipynb")
    assert "<iframe" in shown(recorded)
    assert "One batch does not fit the others" in shown(found)
    assert "the batch of step 200" in shown(found)
    assert "A batch of damaged data" in shown(explained)
    assert "batch 200: from" in shown(evidence)
    assert "Stable" in shown(again)
    assert "verdict: at-risk before, stable after" in shown(compared)


@pytest.mark.parametrize("path", EXAMPLES.glob("*.ipynb"), ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert all(cell.execution_count is None for cell in cells)
