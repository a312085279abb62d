from __future__ import annotations

import pytest

from stabdiag.capture.steps import StepClock


def rows(turns: str) -> list[str]:
    """The rows that a sequence of optimizer steps makes, each written as who stepped in it."""
    clock, done, current = StepClock(), [], ""
    for optimizer in turns:
        if clock.closes_before(optimizer):
            clock.close()
            done.append(current)
            current = ""
        current += optimizer
        if clock.closes_after(optimizer):
            clock.close()
            done.append(current)
            current = ""
    assert clock.open == bool(current)
    return [*done, current] if current else done


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ("aaaa", "a a a a"),
        ("dgdgdg", "d gd gd g"),  # one optimizer after the other: the second joins the next row
        ("dddddgdddddg", "d d d d d gd d d d d g"),  # a critic that steps five times
        ("gdddgddd", "g d d d gd d d"),
        ("aaabbbbbb", "a a a b b b b b b"),  # a second phase
        ("abcabc", "a bca bc"),
    ],
)
def test_a_row_ends_when_the_clock_steps_or_another_steps_twice(turns, expected):
    assert rows(turns) == expected.split()


def test_an_optimizer_that_stepped_twice_is_the_clock_from_then_on():
    clock = StepClock()
    assert clock.closes_after("first")
    clock.close()
    assert not clock.closes_after("second")
    assert clock.open
    assert clock.closes_before("second")
    clock.close()
    assert clock.closes_after("second")
    clock.close()
    assert not clock.open
    assert not clock.closes_before("second")
    assert not clock.closes_after("first")


def test_a_guest_never_takes_over_while_the_clock_goes_on():
    clock = StepClock()
    for _ in range(20):
        assert clock.closes_after("clock")
        clock.close()
        assert not clock.closes_after("guest")


def test_optimizers_that_share_a_backward_pass_step_in_one_row_once_the_second_was_seen_to_follow():
    clock, closed = StepClock(), []
    for step in range(4):
        for optimizer in ("first", "second", "third"):
            if step == 0 and optimizer != "first":
                clock.follows(optimizer)
            elif clock.closes_after(optimizer):
                clock.close()
                closed.append((step, optimizer))
        assert not clock.overdue()
    assert closed == [(0, "first"), (1, "third"), (2, "third"), (3, "third")]


def test_a_row_does_not_wait_for_one_that_no_longer_follows():
    clock = StepClock()
    assert clock.closes_after("first")
    clock.close()
    clock.follows("second")
    assert not clock.closes_after("first")
    assert clock.overdue()
    clock.close()
    assert clock.closes_after("first")
    clock.close()
    assert not clock.overdue()
