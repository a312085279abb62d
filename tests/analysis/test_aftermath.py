"""Whether a rise of the loss was anything out of the ordinary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabdiag.analysis.aftermath import BEFORE, LASTING, OF, _rises, aftermath
from stabdiag.analysis.signatures.exploding_gradient import exploding_gradient
from stabdiag.core.finding import Severity
from stabdiag.core.synthetic import run_of


def bursting(bursts: list[int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    loss = 0.05 + 2.0 * np.exp(-np.arange(900) / 40) + 0.01 * rng.standard_normal(900)
    for at in bursts:
        loss[at : at + 5] += 0.5 if at == 700 else 0.6
    return loss


@pytest.mark.parametrize(("before", "bad"), [([], True), ([300, 400], True), ([300, 400, 500], False)])
def test_what_the_loss_has_done_three_times_and_come_back_from_is_no_harm(before, bad):
    after = aftermath(run_of({"run.loss": bursting([*before, 700])}), 700)
    assert after is not None
    assert after.z > 4
    assert after.share > 0.05
    assert after.bad is bad


def test_a_rise_that_stayed_is_no_habit():
    loss = bursting([700])
    loss[300:] += 0.6
    after = aftermath(run_of({"run.loss": loss}), 700)
    assert after is not None
    assert after.before == 0


@pytest.mark.parametrize(("times", "severity"), [(1, Severity.warning), (5, Severity.info)])
def test_gradients_that_often_come_and_go_under_a_loss_that_does_not_mind_are_a_note(times, severity):
    norms = np.exp(0.3 * np.random.default_rng(0).standard_normal(900))
    for at in range(300, 300 + 100 * times, 100):
        norms[at : at + 14] *= 300
    (finding,) = exploding_gradient(run_of({"run.loss": bursting([]), "run.grad_norm": norms}))
    assert finding.severity is severity


def rises_one_by_one(values: np.ndarray, height: float) -> int:
    count = 0
    for begin in range(BEFORE, len(values) - 2 * BEFORE + 1, BEFORE):
        past, now, then = (values[at : at + BEFORE] for at in (begin - BEFORE, begin, begin + BEFORE))
        if np.isfinite(past).all() and np.isfinite(then).all():
            windows = [np.sort(now[i : i + OF])[-LASTING] for i in range(BEFORE - OF + 1)]
            highest = max(np.inf if np.isnan(value) else value for value in windows)
            count += bool(highest - np.median(past) >= height > np.median(then) - np.median(past))
    return count


@given(seed=st.integers(0, 2**16), count=st.integers(0, 500), height=st.floats(0.01, 5.0))
def test_rises_are_counted_as_one_would_one_by_one(seed, count, height):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2, count)
    values[rng.random(count) < 0.005] = rng.choice([np.nan, np.inf, -np.inf])
    assert _rises(values, height) == rises_one_by_one(values, height)
