"""A secret of the command line or of the environment is in no file of a run, and can be given again."""

from __future__ import annotations

import io
import json
import sys

import pytest

from stabdiag.core.errors import StabdiagError
from stabdiag.core.redaction import REDACTED
from stabdiag.core.run import RunInfo
from stabdiag.launch.secrets import given_again
from stabdiag.store.reader import load

STABDIAG = (sys.executable, "-m", "stabdiag")
SECRETS = ("s3cret-of-the-line", "s3cret-of-the-address", "s3cret-of-the-world", "s3cret-of-a-word")
NAMES_THE_SECRETS = (
    """raise ValueError(f"{sys.argv[2]} is not the key of {os.environ['SOME_TOKEN']}: {sys.argv}")"""
)


def test_no_secret_is_in_any_file_of_a_run(workshop):
    workshop.write_lost(NAMES_THE_SECRETS)
    line, address, world, word = SECRETS
    words = ("--api-key", line, f"--db=postgres://user:{address}@host/runs", f"--hub-token={word}")
    done = workshop.plain(
        *(*STABDIAG, "run", "train.py", *words), SOME_TOKEN=world, OTHER="plainly-the-environment"
    )
    assert line in done.stderr  # the traceback is the script's own
    files = [path for path in workshop.run_directory().rglob("*") if path.is_file()]
    assert {"run.json", "events.jsonl", "findings.json", "report.html"} <= {path.name for path in files}
    for path in files:
        held = path.read_bytes()
        assert not [secret for secret in (*SECRETS, "plainly-the-environment") if secret.encode() in held], (
            path
        )
    command = load(workshop.run_directory()).info.command
    assert command == (
        "train.py",
        "--api-key",
        REDACTED,
        f"--db=postgres://user:{REDACTED}@host/runs",
        f"--hub-token={REDACTED}",
    )
    ours = [text for text in done.stderr.splitlines() if text.startswith("stabdiag: ")]
    assert not [text for text in ours for secret in SECRETS if secret in text]


def test_secrets_are_put_back_where_they_were():
    command = ("train.py", "--api-key", REDACTED, f"--db=x://u:{REDACTED}@h/{REDACTED}", "--lr=1")
    asked = []
    answers = iter(["a", "b", "c"])

    def ask(around):
        asked.append(around)
        return next(answers)

    given = given_again(RunInfo(command=command), ask)
    assert given.command == ("train.py", "--api-key", "a", "--db=x://u:b@h/c", "--lr=1")
    assert asked == [f"--api-key {REDACTED}", command[3], command[3]]


def test_a_command_without_secrets_asks_nothing():
    info = RunInfo(command=("train.py", "--lr", "1"))
    assert given_again(info, lambda around: pytest.fail("asked")) == info


def test_without_an_answer_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(StabdiagError, match="not recorded: --token") as raised:
        given_again(RunInfo(command=("train.py", "--token", REDACTED)))
    assert "stabdiag verify RUN < FILE" in raised.value.hint


def test_verify_takes_the_secret_from_standard_input(workshop):
    """The replays get it, and record it no more than the run did."""
    workshop.write_lost("open('seen', 'a').write(sys.argv[2] + '\\n')")
    workshop.run("train.py", "--api-key", SECRETS[0])
    (workshop.folder / "seen").unlink()
    refused = workshop.plain(*STABDIAG, "verify", stdin="")
    assert refused.returncode == 2
    assert f"held a secret, which was not recorded: --api-key {REDACTED}\n" in refused.stderr
    assert not (workshop.folder / "seen").exists()
    workshop.plain(*STABDIAG, "verify", "--json", "--jobs", "2", stdin=f"{SECRETS[0]}\n")
    assert set((workshop.folder / "seen").read_text().splitlines()) == {SECRETS[0]}
    for path in workshop.run_directory().rglob("*.json*"):
        assert SECRETS[0] not in path.read_text(), path
    assert json.loads((workshop.run_directory() / "verification.json").read_text())["trials"]
