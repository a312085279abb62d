"""The workflow in examples, and the commands in docs/ci.md, are ones that stabdiag takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from stabdiag.cli import stabdiag

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "examples" / "github-actions.yml"
PAGE = ROOT / "docs" / "ci.md"


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    assert set(workflow) == {"name", True, "permissions", "jobs"}  # `on` is true to YAML 1.1
    (job,) = workflow["jobs"].values()
    return job["steps"]


def parameters(words: list[str]) -> dict[str, Any]:
    """What click makes of a command line of ours, without running it."""
    command = stabdiag.get_command(click.Context(stabdiag, obj={"debug": False}), words[0])
    return command.make_context(words[0], words[1:], obj={"debug": False}).params


def commands(text: str) -> list[list[str]]:
    found = re.findall(r"^\s*(?:run: |\$ )stabdiag (.*)$", text, re.MULTILINE)
    return [shlex.split(line.partition(" >> ")[0]) for line in found]


@pytest.mark.parametrize(
    "words", commands(WORKFLOW.read_text("utf-8")) + commands(PAGE.read_text("utf-8")), ids=" ".join
)
def test_each_command_is_one_that_stabdiag_takes(words):
    assert parameters(words)


def test_the_workflow_uploads_what_the_check_writes(steps):
    lines = [step["run"] for step in steps if "stabdiag check" in step.get("run", "")]
    told = parameters(commands(f"run: {lines[0]}")[0])
    assert told["fail_on"] == "warning"
    uploads = {step["uses"].partition("@")[0]: step for step in steps if "uses" in step}
    scanning = uploads["github/codeql-action/upload-sarif"]
    assert scanning["with"]["sarif_file"] == str(told["sarif"])
    kept = uploads["actions/upload-artifact"]["with"]["path"].split()
    assert kept == [str(told["junit"]), str(told["run"])]
    # What is uploaded is uploaded where the check has failed, too.
    assert {scanning["if"], uploads["actions/upload-artifact"]["if"]} == {"always()"}


def test_each_action_is_of_a_version_and_the_job_may_write_to_code_scanning(steps):
    assert all(re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert "security-events: write" in WORKFLOW.read_text("utf-8")


def test_the_page_names_every_option_that_writes_a_file():
    for option in ("--junit", "--sarif", "--baseline", "--fail-on", "--select", "--ignore"):
        assert option in PAGE.read_text("utf-8")
