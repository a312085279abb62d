from __future__ import annotations

import math

import pytest

from stabdiag.capture.schedule import AFTER_TROUBLE, FIRST, REST, Schedule
from stabdiag.core.cadence import Cadence
from stabdiag.core.tier import Tier


def recorded(every: int, steps: int, trouble: dict[int, tuple[float, float]]) -> list[int]:
    """Steps that are recorded whole; the loss and gradient norm are 1 but for those in `trouble`."""
    schedule, due = Schedule(Cadence(every=every)), []
    for step in range(steps):
        if schedule.choose(step) >= Tier.STANDARD:
            due.append(step)
        schedule.observe(step, *trouble.get(step, (1.0, 1.0)))
    return due


def test_the_first_steps_and_every_kth_are_due():
    assert recorded(10, 31, {}) == [*range(FIRST), 10, 20, 30]
    assert recorded(1, 8, {}) == list(range(8))


@pytest.mark.parametrize("trouble", [(math.nan, 1.0), (1.0, math.inf), (1.0, 5.0), (math.inf, math.nan)])
def test_the_steps_after_trouble_are_due(trouble):
    due = recorded(1000, 40, {22: trouble})
    assert due == [*range(FIRST), *range(23, 23 + AFTER_TROUBLE)]


@pytest.mark.parametrize("quiet", [(1.0, 3.5), (1.0, 0.01), (-5.0, 1.0), (1e9, 1.0), (1.0, 0.0)])
def test_what_is_no_trouble_costs_nothing(quiet):
    assert recorded(1000, 40, {22: quiet}) == list(range(FIRST))


def test_a_run_that_never_recovers_stays_cheap():
    due = recorded(1000, 1000, dict.fromkeys(range(1000), (math.nan, math.nan)))
    assert len(due) <= FIRST + (1000 // REST + 1) * AFTER_TROUBLE
    assert due[-1] > 900


def test_growth_over_many_steps_is_no_jump():
    assert recorded(1000, 60, {step: (1.0, 1.1**step) for step in range(60)}) == list(range(FIRST))
