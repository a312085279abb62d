"""`stabdiag demo FAULT` names each fault: signature, cause, place and step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest

from stabdiag.zoo.fault import FAULTS


def diagnosed(name: str, folder: Path) -> dict:
    command = [sys.executable, "-m", "stabdiag", "demo", name, "--log-dir", str(folder / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / name / "latest" / "findings.json").read_text())


@pytest.fixture(scope="module")
def diagnoses(request, tmp_path_factory):
    """The diagnosis of each selected fault, two trained at a time."""
    folder = tmp_path_factory.mktemp("faults")
    here = [item for item in request.session.items if item.path == request.path]
    names = {item.callspec.params["name"] for item in here if hasattr(item, "callspec")}
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(diagnosed, name, folder) for name in sorted(names)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [fault.id for fault in FAULTS])
def test_the_first_incident_is_the_planted_fault(diagnoses, name):
    fault, report = FAULTS[name], diagnoses[name].result()
    assert report["verdict"] != "stable"
    incident = report["incidents"][0]
    root = report["findings"][incident["root"]]
    assert root["signature"] in fault.roots
    assert incident["cause"], "no cause was found"
    assert incident["cause"]["id"] in fault.causes
    assert any(fnmatch(site, fault.site) for site in root["sites"])
    assert root["onset_step"] >= fault.step
    if fault.step:
        assert root["onset_step"] <= fault.step + 10
