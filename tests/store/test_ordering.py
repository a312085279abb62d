from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabdiag.store.importer import Scalars
from stabdiag.store.ordering import ordered


def scalars(steps, values=None):
    values = range(len(steps)) if values is None else values
    return Scalars(array("q", steps), array("d", [0.0] * len(steps)), array("d", values))


def test_what_is_in_order_stays_as_it_is():
    found = ordered(scalars([1, 2, 5]))
    assert (found.steps.tolist(), found.values.tolist(), found.restarts) == ([1, 2, 5], [0, 1, 2], ())


def test_the_attempt_that_was_given_up_is_left_out():
    found = ordered(scalars([*range(0, 100, 10), *range(60, 80, 10)]))
    assert found.steps.tolist() == list(range(0, 80, 10))
    assert found.values[-2:].tolist() == [10, 11]
    assert found.restarts == (60,)


def test_a_value_that_came_late_is_no_restart():
    found = ordered(scalars([0, 1, 2, 3, 5, 4, 6, 7, 8, 9]))
    assert found.steps.tolist() == list(range(10))
    assert found.restarts == ()


def test_the_last_value_of_a_step_counts():
    found = ordered(scalars([0, 0, 1, 1, 2, 2]))
    assert (found.steps.tolist(), found.values.tolist()) == ([0, 1, 2], [1, 3, 5])


def test_values_that_all_have_one_step_are_counted():
    found = ordered(scalars([0, 0, 0, 0]))
    assert (found.steps.tolist(), found.counted) == ([0, 1, 2, 3], True)


@given(st.permutations(range(40)))
def test_steps_in_no_order_are_sorted_and_none_is_lost(steps):
    if np.count_nonzero(np.diff(steps) <= 0) > 10:
        assert ordered(scalars(steps)).steps.tolist() == list(range(40))


@given(st.lists(st.integers(0, 50), max_size=80))
def test_steps_increase_and_each_value_keeps_its_own(steps):
    found = ordered(scalars(steps))
    assert (np.diff(found.steps) > 0).all()
    assert found.counted or all(steps[int(at)] == s for s, at in zip(found.steps, found.values, strict=True))


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=4))
def test_each_restart_undoes_what_it_goes_back_behind(attempts):
    """The oracle is a dictionary that forgets what is behind where an attempt begins."""
    steps: list[int] = []
    truth: dict[int, int] = {}
    reached = 0
    for length, back in attempts:
        begin = max(reached - back, 0)
        if sum(step >= begin for step in truth) > 2:
            truth = {step: value for step, value in truth.items() if step < begin}
        for step in range(begin, begin + length):
            truth[step] = len(steps)
            steps.append(step)
        reached = begin + length
    if not 4 * np.count_nonzero(np.diff(steps) <= 0) > len(steps):
        found = ordered(scalars(steps))
        assert dict(zip(found.steps.tolist(), found.values.tolist(), strict=True)) == truth


def test_a_million_values_that_restart_often_take_no_time():
    steps = np.concatenate([np.arange(0, 3000) + 100 * i for i in range(330)])
    found = ordered(scalars(steps.tolist()))
    assert len(found.steps) == pytest.approx(steps.max() + 1)
    assert len(found.restarts) == 329
