"""A loss that leaps and comes down as slowly as one learns is that of other data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.history import History
from stabdiag.analysis.relearning import relearning
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

AT = 200


def curve(left: float, speed: float = 12.0, noise: float = 0.03) -> np.ndarray:
    """Leaps by 2 at step 200, of which `left` is there at the next one, and is forgotten in `speed` steps."""
    loss = 1.0 + 2.0 * np.exp(-np.arange(400) / 40) + noise * np.random.default_rng(0).standard_normal(400)
    loss[AT] += 2.0
    loss[AT + 1 :] += 2.0 * left * np.exp(-np.arange(400 - AT - 1) / speed)
    return loss


def of(loss: np.ndarray):
    return relearning(History(np.arange(len(loss)), loss), z=6.0, least=0.5)


@pytest.mark.parametrize("left", [0.5, 0.7, 0.95])
def test_what_has_to_be_learned_anew_is_found_at_its_step(left):
    found = of(curve(left))
    assert found is not None
    assert found.step == AT
    assert found.height == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("left", [0.0, 0.1, -0.2, 1.5])
def test_a_batch_that_is_over_and_a_loss_that_rises_on_are_not(left):
    assert of(curve(left)) is None


def test_what_the_loss_has_done_before_is_its_habit():
    loss = curve(0.7)
    loss[100] += 1.0
    assert of(loss) is None


def test_a_loss_that_goes_up_and_down_learns_nothing():
    loss = curve(0.7)
    loss[AT + 1] = 0.9
    assert of(loss) is None


def test_a_spike_of_a_few_steps_is_over_before_anything_is_learned():
    loss = curve(0.0)
    loss[AT : AT + 6] += np.linspace(0.0, -1.5, 6) + np.r_[0.0, np.full(5, 2.0)]
    assert of(loss) is None


def test_a_loss_that_rises_further_is_a_divergence():
    loss = curve(0.7)
    loss[AT + 6 :] += 1.0
    assert of(loss) is None


def test_a_small_loss_that_scatters_by_factors_learns_nothing_anew():
    scatter = np.exp(0.8 * np.random.default_rng(1).standard_normal(400))
    loss = 0.25 * np.minimum(scatter, 2.0) + 3.0 * (np.arange(400) < 20)
    loss[AT : AT + 10] = 1.9, 1.3, 0.9, 0.8, 0.8, 0.75, 0.7, 0.65, 0.6, 0.6
    assert of(loss) is None
    # Where it may be negative its logarithm says nothing.
    assert of(loss - 1.0) is not None


@given(st.floats(0.01, 1e6))
def test_the_unit_of_the_loss_does_not_matter(scale):
    loss = scale * curve(0.7)
    found = relearning(History(np.arange(400), loss), z=6.0, least=0.5 * scale)
    assert found is not None
    assert found.step == AT


def shifted(outputs: np.ndarray | None = None) -> Run:
    series = {"run.loss": curve(0.7)}
    if outputs is not None:
        series["output.absmax"] = outputs
    return run_of(series)


def test_it_is_told_as_other_data_unless_the_model_changed_inside():
    (finding,) = SIGNATURES["distribution-shift-or-resume"](shifted())
    assert (finding.severity, finding.onset_step) == (Severity.warning, AT)
    broken = np.ones((400, 5))
    broken[AT:, 2:] = 100.0
    assert not list(SIGNATURES["distribution-shift-or-resume"](shifted(broken)))
