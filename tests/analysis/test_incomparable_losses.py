"""Losses that may not be held against each other, because their targets are not the same."""

import numpy as np
import pytest

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.incomparable import targets_move
from stabdiag.analysis.losscurve import harmed, loss_curve
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = 1000
RNG = np.random.default_rng(0)


def policy(loss, *events):
    return run_of({"run.loss": loss}, events=[Event("loss", 0.0, data={"function": "unknown"}), *events])


def run(sizes, loss=None):
    loss = np.ones(STEPS) if loss is None else loss
    noisy = sizes * np.exp(0.1 * RNG.standard_normal(STEPS))
    return run_of(
        {"run.loss": loss, "targets.rms": noisy, "targets.loss": loss},
        sites={"targets": [Site("targets", "smooth-absolute-error")]},
        events=[Event("loss", 0.0, data={"function": "smooth-absolute-error"})],
    )


def test_a_classifier_whose_answers_are_looked_at_between_its_steps_does_not_act():
    answers = Event("acting", 0.0, data={"calls": 400, "occasions": 400, "steps": 400})
    loss = 1.6 * np.exp(-np.arange(400) / 100)
    returns = 1.0 + 2.0 * np.abs(np.random.default_rng(1).standard_normal(400))

    def several(trained):
        kind = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 5})
        series = {"run.loss": trained, "targets.loss": loss}
        of = run_of(series, sites={"targets": [Site("targets", "cross-entropy")]}, events=[kind, answers])
        return loss_curve(of).several

    assert not several(loss)
    assert several(returns * loss)  # weighted by what followed, as those of a policy


@pytest.mark.parametrize("every", [1, 50], ids=["bit by bit", "with a target network"])
def test_values_that_grow_with_what_is_learned_move(every):
    assert targets_move(run(1 + 16 * (1 - np.exp(-(np.arange(STEPS) // every * every) / 300))))


def test_targets_of_one_distribution_do_not_move():
    assert not targets_move(run(np.full(STEPS, 3.0)))
    assert not targets_move(run(np.exp(0.5 * RNG.standard_normal(STEPS))))


def test_targets_that_are_others_from_one_step_on_were_changed():
    assert not targets_move(run(np.where(np.arange(STEPS) < 500, 1.0, 10.0)))


def test_the_error_of_values_that_grow_may_grow_with_them():
    values = 1 + 16 * (1 - np.exp(-np.arange(STEPS) / 300))
    loss = 0.02 * values * np.exp(0.8 * RNG.standard_normal(STEPS))
    loss[:20] = 0.5
    assert not [f for f in diagnose(run(values, loss)).findings if f.severity > Severity.info]
    # The same loss with targets that stay what they are is one that was lost.
    assert diagnose(run(np.ones(STEPS), loss)).verdict == "failed"


def acting(function, calls, occasions):
    data = {"calls": calls, "occasions": occasions, "steps": 100}
    return [Event("loss", 0.0, data={"function": function}), Event("acting", 0.0, data=data)]


@pytest.mark.parametrize(
    ("function", "calls", "occasions", "counts"),
    [
        ("smooth-absolute-error", 60, 60, False),
        ("unknown", 500, 8, False),
        ("cross-entropy", 500, 8, True),
    ],
    ids=["before each step", "in rollouts", "text that is sampled now and then"],
)
def test_the_loss_of_a_model_that_acts_may_rise(function, calls, occasions, counts):
    rising = 5.0 + 20.0 * np.linspace(0, 1, STEPS) + RNG.standard_normal(STEPS)
    assert harmed(run_of({"run.loss": rising}, events=acting(function, calls, occasions))) == counts


def test_a_surrogate_that_goes_about_zero_is_not_to_be_lowered():
    assert not harmed(policy(RNG.standard_normal(STEPS)))


def test_a_likelihood_that_falls_through_zero_is_to_be_lowered():
    falling = np.linspace(2.0, -4.0, STEPS) + RNG.standard_normal(STEPS)
    assert not loss_curve(policy(falling)).several
