"""A step of the bundled trainer is made again to the bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import stabdiag
from stabdiag.core.errors import StabdiagError
from stabdiag.core.run import RunInfo
from stabdiag.reference import train as trainer
from stabdiag.zoo.command import trainer_arguments
from stabdiag.zoo.replay import replay

SMALL = (
    *("--layers=2", "--heads=2", "--width=16", "--context=16"),
    *("--batch=4", "--warmup=3", "--evaluate-every=0"),
)
TEXT = b"All happy families are alike; each unhappy family is unhappy in its own way.\n" * 60


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_bytes(TEXT)
    return ["--text", "text.txt", "--device", "cpu", "--dropout", "0.2", "--steps", "12", *SMALL]


def recorded(arguments, command=("-m", "stabdiag.reference.train")):
    """The run of such a command, trained here."""
    torch.set_num_threads(1)
    options, batches, held_out = trainer.build_data(trainer.parse(arguments))
    model = trainer.build_model(options)
    optimizer = trainer.build_optimizer(model, options)
    with stabdiag.watch(model, optimizer, log_dir="runs", every=4) as recording:
        trainer.train(options, model, optimizer, batches, held_out)
    run = recording.run
    return replace(run, info=RunInfo(command=(*command, *arguments)))


def test_from_the_start_every_loss_is_that_of_the_run(arguments):
    run = recorded(arguments)
    done = replay(run, 7, threads=1)
    assert (done.first, done.agreed, done.differs, done.exact) == (0, 8, None, True)
    np.testing.assert_array_equal(done.losses, run.table("run.loss").first()[:8])
    assert {row.module for row in done.ranges} >= {"tokens", "blocks.1.mlp.expand", "head", "GPT"}
    at_4 = replay(run, 4, threads=1).ranges
    recorded_rms = dict(zip(run.table("output.rms").names, run.table("output.rms").values[4], strict=True))
    row = next(row for row in at_4 if row.module == "blocks.0.mlp.expand")
    assert row.rms == pytest.approx(recorded_rms["blocks.0.mlp.expand"], rel=1e-4)


def test_from_the_last_checkpoint_that_is_not_behind_the_step(arguments):
    run = recorded([*arguments, "--checkpoint", "c.pt", "--checkpoint-every", "5"])
    Path("c.pt").unlink()
    trainer.main([*arguments, "--checkpoint", "c.pt", "--checkpoint-every", "5", "--steps", "9"])
    before = Path("c.pt").read_bytes()
    assert trainer.saved_step("c.pt") == 9
    early = replay(run, 7, threads=1)
    assert (early.first, early.agreed) == (0, 8)
    assert Path("c.pt").read_bytes() == before


def test_a_checkpoint_saves_the_way_to_its_step(arguments):
    options = [*arguments, "--checkpoint", "c.pt", "--checkpoint-every", "8"]
    run = recorded(options)
    # The last step writes one, too: that of step 8 is what a run that died at step 10 leaves.
    model = trainer.build_model(*trainer.build_data(trainer.parse(arguments))[:1])
    parsed, batches, _ = trainer.build_data(trainer.parse(options))
    optimizer = trainer.build_optimizer(model, parsed)
    trainer.train(parsed, model, optimizer, batches, steps=range(8))
    done = replay(run, 10, threads=1)
    assert (done.first, done.agreed, done.differs) == (8, 3, None)


def test_steps_of_a_run_that_went_on_from_a_checkpoint_are_counted_from_there(arguments):
    trainer.main([*arguments, "--checkpoint", "c.pt", "--checkpoint-every", "5", "--steps", "12"])
    options, batches, _ = trainer.build_data(trainer.parse(arguments))
    model = trainer.build_model(options)
    optimizer = trainer.build_optimizer(model, options)
    trainer.train(options, model, optimizer, batches, steps=range(5))
    trainer.save("five.pt", 5, model, optimizer)
    run = recorded([*arguments, "--resume", "five.pt"])
    done = replay(run, 3, threads=1)
    assert (done.first, done.agreed, done.differs) == (0, 4, None)


def test_a_training_that_comes_out_otherwise_is_not_called_the_same(arguments):
    run = recorded(arguments)
    other = replace(run, info=RunInfo(command=(*run.info.command, "--seed", "1")))
    done = replay(other, 5, threads=1)
    assert (done.agreed, done.differs) == (0, 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "3"], "no step 7"),
        (["--text", "gone.txt"], "gone.txt"),
        (["--resume", "gone.pt"], "gone.pt"),
        (["--frobnicate"], "not understood"),
    ],
)
def test_what_cannot_be_made_again_is_told_in_one_line(arguments, more, message, capsys):
    run = recorded(arguments)
    broken = replace(run, info=RunInfo(command=(*run.info.command, *more)))
    with pytest.raises(StabdiagError, match=message):
        replay(broken, 7, threads=1)
    assert capsys.readouterr().err == ""


def test_threads_are_those_of_the_run_and_then_ours_again(arguments, monkeypatch):
    run = recorded(arguments)
    threads = []
    original = trainer.train
    monkeypatch.setattr(
        "stabdiag.zoo.replay.train",
        lambda *args, **more: (threads.append(torch.get_num_threads()), original(*args, **more))[1],
    )
    torch.set_num_threads(2)
    try:
        assert replay(run, 1, threads=1).differs is None
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(threads) == {1}


def test_the_trainers_command_is_known_and_no_other():
    assert trainer_arguments(("-m", "stabdiag.reference.train", "--seed", "3")) == (
        "stabdiag.reference.train",
        ["--seed", "3"],
    )
    planted = (sys.executable, "-m", "stabdiag.zoo.plant", "bad-init")
    assert trainer_arguments(planted) == ("stabdiag.zoo.plant", ["bad-init"])
    assert trainer_arguments(("train.py", "stabdiag.reference.train")) is None
    assert trainer_arguments(("stabdiag.reference.train", "-m")) is None
