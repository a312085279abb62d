"""No secret of a command line is recorded, and what is none stays as it was."""

from __future__ import annotations

import shlex

import pytest

from stabdiag.core import redaction
from stabdiag.core.redaction import REDACTED, is_secret, redacted, redacted_command, redacted_record

SECRET = "S3CRETvalue"


@pytest.mark.parametrize(
    "command",
    [
        f"train.py --token={SECRET}",
        f"train.py --token {SECRET} --lr 3e-4",
        f"train.py --api-key {SECRET}",
        f"train.py --api_key={SECRET}",
        f"train.py --apikey {SECRET}",
        f"train.py -password {SECRET}",
        f"train.py --db-password={SECRET}",
        f"train.py --hub-token {SECRET}",
        f"train.py --use_auth_token {SECRET}",
        f"train.py --push-to-hub-token {SECRET}",
        f"train.py --authToken={SECRET}",
        f"train.py --client-secret {SECRET}",
        f"train.py --wandb-key {SECRET}",
        f"train.py wandb.api_key={SECRET} lr=0.1",
        f"train.py +hub.token={SECRET}",
        f"env HF_TOKEN={SECRET} python train.py",
        f"env WANDB_API_KEY={SECRET} AWS_SECRET_ACCESS_KEY={SECRET} python train.py",
        f"env OPENAI_KEY={SECRET} PGPASSWORD={SECRET} python train.py",
        f"bash -c 'HF_TOKEN={SECRET} python train.py'",
        f"""python -c 'import os; os.environ["HF_TOKEN"] = "{SECRET}"; api_key="{SECRET}"'""",
        f"""train.py --config '{{"api_key": "{SECRET}", "lr": 1}}'""",
        f"train.py --db postgres://user:{SECRET}@host/runs",
        f"train.py --proxy=http://{SECRET}@host:8080",
        f"train.py 'https://host/data?sv=1&sig={SECRET}&x=1'",
        f"train.py https://host/data?X-Amz-Signature={SECRET}",
        f"curl -H 'Authorization: Bearer {SECRET}'",
        f"train.py --x 'a\n-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\nb'",
        f"train.py hf_{SECRET}9abcdefgh",
        f"train.py --where=sk-proj-{SECRET}0123456789",
        f"train.py ghp_{SECRET}0123456789abcdefghij",
        f"train.py glpat-{SECRET}0123456789",
        f"train.py xoxb-12345-{SECRET}",
        f"train.py eyJhbGciOiJIUzI1NiJ9.{SECRET}eyJzdWIi.{SECRET}",
    ],
)  # fmt: skip
def test_a_secret_of_a_command_is_left_out(command):
    words = shlex.split(command)
    shown = redacted_command(words)
    assert SECRET not in " ".join(shown)
    assert any(REDACTED in word for word in shown)
    assert len(shown) == len(words)
    assert redacted_command(shown) == shown


def test_an_access_key_is_known_by_its_form():
    assert redacted_command(["train.py", "AKIAIOSFODNN7EXAMPLE"]) == ("train.py", REDACTED)


@pytest.mark.parametrize(
    "command",
    [
        "train.py --lr 3e-4 --steps=200 --seed 1",
        "train.py --max-tokens 512 --tokenizer gpt2 --token-budget 10 --num-token 8",
        "train.py --pad-token '<pad>' --eos_token=</s> --image-token-id 7 --mask-token [MASK]",
        "train.py --text-key text --label-key=label --key-dim 64 --sort-key length",
        "train.py --use-auth-token --lr 1",
        "train.py --use_auth_token True --token=none",
        "train.py --password-file /run/keys --secret-santa",
        "train.py --ckpt runs/hf_checkpoint --backend sk-learn",
        "train.py --data s3://bucket/a@b https://host/a?b=c git@github.com:a/b ssh://git@host/x",
        "train.py --eval task-1234567890123 risk-0123456789abc",
        "torchrun --nproc-per-node 2 --rdzv-endpoint host:29400 train.py model.n_head=4",
        "train.py --keys a b --author me --signature-size 8 --monkey 3",
    ],
)
def test_what_is_no_secret_stays_as_it_was(command):
    words = tuple(shlex.split(command))
    assert redacted_command(words) == words


def test_names_are_told_apart_by_what_stands_before_them():
    assert is_secret("--token")
    assert is_secret("MY_SERVICE_TOKEN")
    assert not is_secret("--eos-token")
    assert is_secret("SOME_KEY")
    assert not is_secret("--key")
    assert not is_secret("KEY")


def test_what_this_process_was_given_is_left_out_of_any_text(monkeypatch):
    monkeypatch.setattr(
        "sys.orig_argv", ["python", "train.py", "--api-key", "zyxwvut", "--db=x://u:hunter22@h"]
    )
    monkeypatch.setenv("SOME_TOKEN", "from-the-environment")
    redaction._given.cache_clear()
    try:
        told = redacted("no such key: zyxwvut, hunter22, from-the-environment, other")
        record = redacted_record({"message": "zyxwvut", "data": [{"x": "zyxwvut"}, 3, None]})
    finally:
        monkeypatch.undo()
        redaction._given.cache_clear()
    assert told == f"no such key: {REDACTED}, {REDACTED}, {REDACTED}, other"
    assert record == {"message": REDACTED, "data": [{"x": REDACTED}, 3, None]}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a.b-", "x", "eyJ-", "sk-", "hf_", "x://", "x://a:", "token=", "Bearer "])
def test_ten_megabytes_are_cut_and_looked_through_in_a_moment(text):
    assert len(redacted(text * (10_000_000 // len(text)))) <= 2 * redaction.LONGEST
