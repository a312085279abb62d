"""`stabdiag demo FAULT` names each fault: signature, cause, place and step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [fault.id for fault in FAULTS])
def test_the_first_incident_is_the_planted_fault(name, tmp_path):
    fault, report = FAULTS[name], diagnosed(name, tmp_path)
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
