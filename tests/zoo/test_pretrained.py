"""A model that was trained before, whoever looks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from stabdiag.core.cadence import Cadence
from stabdiag.launch.supervisor import Options, supervise
from stabdiag.launch.target import resolve_target
from stabdiag.launch.voice import Voice
from stabdiag.store.reader import load
from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.case import Case
from stabdiag.zoo.plant import command
from stabdiag.zoo.pretrained import RECORDED, pretrain


def made():
    return ARCHITECTURES["vae"].training("adam", 3, steps=30)


def test_it_goes_on_as_a_new_training_of_what_was_learned():
    training, fresh = made(), made()
    pretrain(training)
    for run in (training, fresh):
        run.prepare()
        run.steps = 5
        run.run()
    assert len(training.losses) == 5
    assert training.losses[0] < fresh.losses[0]
    assert not torch.equal(training.parts.batches(0)[0], fresh.parts.batches(0)[0])


def test_a_recorded_process_takes_no_step_of_it_and_comes_to_the_same_weights(monkeypatch):
    seen, recorded = made(), made()
    pretrain(seen)
    chance = torch.rand(())
    steps = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    monkeypatch.setenv(RECORDED, "somewhere")
    pretrain(recorded)
    hook.remove()
    assert steps == []
    assert torch.rand(()) == chance
    for one, other in zip(recorded.model.parameters(), seen.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_replay_of_what_was_trained_before_records_what_came_after_alone(tmp_path):
    case = Case("destroyed-features", "regression", "adam", 1, 50.0, every=10)
    target = resolve_target([*command(case), "--steps", "7"])
    ending = supervise(target, Options(Cadence(every=10), tmp_path, "replayed"), Voice(quiet=True))
    assert ending.exit_status == 0
    run = load(tmp_path / "replayed")
    training, _ = case.prepared()
    training.steps = 7
    training.run()
    np.testing.assert_allclose(run.table("run.loss").first(), training.losses, rtol=1e-6)
