"""What the loss says about something that happened at a certain step."""

import math

import numpy as np
import pytest

from stabdiag.analysis.consequence import improves, stuck, suffers, while_finite
from stabdiag.analysis.guessing import guessing
from stabdiag.analysis.history import History
from stabdiag.analysis.level_shift import noise_of
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.core.event import Event
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

NOISE = 0.23 * np.random.default_rng(0).standard_normal(300)
CLASSES = 256


def run(loss, mean=None, classes=CLASSES):
    series = {"run.loss": loss} if mean is None else {"run.loss": loss, "targets.loss": mean}
    asked = Event("loss", 0.0, data={"function": "cross-entropy", "classes": classes})
    return run_of(series, sites={"targets": [Site("targets", "cross-entropy")]}, events=[asked])


def test_a_slow_descent_under_much_noise_is_an_improvement():
    falling = np.r_[np.linspace(5.5, 3.1, 50), np.linspace(3.1, 2.7, 250)]
    assert improves(run(falling + NOISE), 100)


def test_noise_alone_is_no_improvement():
    assert not improves(run(3.1 + NOISE), 60)


def test_a_spike_that_comes_back_is_no_improvement():
    loss = np.full(300, 3.0)
    loss[60:160] += np.linspace(2.0, 0.0, 100)
    assert not improves(run(loss + NOISE), 60)


def test_a_model_that_was_trained_before_need_not_gain():
    assert not suffers(run(2.5 + NOISE), 0)
    assert suffers(run(2.5 + NOISE, classes=12), 0)


def test_a_model_that_was_trained_before_and_gained_a_little_is_not_stuck():
    loss = 2.5 + 0.1 * NOISE
    loss[:5] += 0.4
    assert not suffers(run(loss), 0)


def test_a_model_that_was_trained_before_suffers_where_it_loses():
    assert suffers(run(np.linspace(2.5, 5.0, 300) + NOISE), 0)
    assert suffers(run(np.r_[np.full(150, 2.5), np.full(150, 2.7)] + 0.1 * NOISE), 140)


def test_one_lucky_batch_at_the_start_is_no_harm_to_what_follows():
    loss = 2.5 + NOISE
    loss[1] = 1.0
    assert not suffers(run(loss), 3)


@pytest.mark.parametrize("scale", [1.0, 64.0, 0.01])
def test_guessing_costs_what_the_script_makes_of_it(scale):
    mean = 2.0 + NOISE
    assert guessing(run(scale * mean, mean)) == pytest.approx(scale * math.log(CLASSES), rel=1e-5)


def test_what_was_learned_of_a_summed_loss_counts_in_its_own_unit():
    mean = 1.0 + 4.5 * np.exp(-np.arange(300) / 20) + 0.05 * NOISE
    assert not stuck(run(64 * mean, mean), 0)


def test_what_keeps_from_learning_is_not_blamed_for_a_loss_that_was_lost():
    falling = np.linspace(5.5, 2.7, 300)
    falling[200:] = math.inf
    lost = run(falling + NOISE)
    assert suffers(lost, 0)
    assert not suffers(while_finite(lost), 0)


def test_a_loss_that_is_finite_to_the_end_is_taken_whole():
    whole = run(3.0 + NOISE)
    assert while_finite(whole) is whole


def test_of_a_loss_of_two_terms_no_guess_is_known():
    own = np.linspace(1.6, 0.8, 300)
    assert guessing(run(0.25 * own, own, classes=5)) == pytest.approx(0.25 * math.log(5))
    assert guessing(run(own + np.linspace(6.0, 5.9, 300), own, classes=5)) is None


def test_a_first_value_that_is_low_by_chance_is_no_level_to_fall_from():
    loss = 2.5 + NOISE
    loss[0] = 2.5 - 3 * 0.23
    assert loss_curve(run(loss)).start == pytest.approx(2.5, abs=0.15)


def test_a_loss_that_rises_from_its_first_step_on_began_there():
    loss = 2.5 + 0.05 * np.arange(300) + 0.1 * NOISE
    assert loss_curve(run(loss)).start == pytest.approx(loss[0])
    assert loss_curve(run(loss)).harmed


def test_the_last_digit_of_a_16_bit_loss_is_noise():
    loss = np.where(np.arange(300) < 150, 2.0625, 2.078125)
    loss[::40] = 2.09375
    assert noise_of(History(np.arange(300), loss)) == pytest.approx(0.015625)
