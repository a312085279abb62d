"""Each control can be trained, and does no harm."""

from __future__ import annotations

import math

import pytest

from stabdiag.zoo.control import CONTROLS

TRAINED_BEFORE = {"gentle-tuning", "low-rank-tuning", "resumed"}
ALL = [control.id for control in CONTROLS]


@pytest.mark.parametrize("name", [n for n in ALL if n not in TRAINED_BEFORE and CONTROLS[n].world == 1])
def test_it_trains_and_its_loss_does_not_rise(name, sound):
    training = sound(CONTROLS[name])
    CONTROLS[name].prepare(training)
    training.prepare()
    training.run()
    scaled = training.scaler is not None  # the scale that it finds last may have left weights as they were
    assert all(math.isfinite(loss) for loss in training.losses)
    late, early = (sum(part) / len(part) for part in (training.losses[-5:], training.losses[:3]))
    assert scaled or late < early + 0.3 * abs(early)


@pytest.mark.parametrize("name", sorted(TRAINED_BEFORE))
def test_a_training_that_goes_on_begins_where_the_other_ended(name, sound):
    training = sound(CONTROLS[name], steps=120)
    fresh = sound(CONTROLS[name], steps=120)
    fresh.prepare()
    CONTROLS[name].prepare(training)
    training.prepare()
    for run in (training, fresh):
        run.steps = 3
        run.run()
    assert training.losses[0] < fresh.losses[0]


def test_every_control_says_what_it_is():
    assert all(control.doc.endswith(".") for control in CONTROLS)
