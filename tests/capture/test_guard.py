from __future__ import annotations

import time

import pytest
import torch

from stabdiag.capture.guard import Guard


@pytest.fixture
def reports():
    return []


@pytest.fixture
def guard(reports):
    return Guard(lambda probe, error: reports.append((probe, str(error))))


def fail():
    raise RuntimeError("broken")


def test_what_a_probe_returns_comes_through_without_gradients(guard):
    x = torch.ones(1, requires_grad=True)
    assert guard("a", lambda y: (y * 2).requires_grad, x) is False
    assert torch.is_grad_enabled()


def test_an_error_switches_off_its_probe_alone_and_is_reported_once(guard, reports):
    assert guard("a", fail) is None
    assert guard("a", fail) is None
    assert guard("a", lambda: 1) is None
    assert guard("b", lambda: 2) == 2
    assert reports == [("a", "broken")]
    assert torch.is_grad_enabled()


def test_an_interruption_is_not_swallowed(guard, reports):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard("a", interrupt)
    assert reports == []
    assert guard("a", lambda: 1) == 1


def test_time_is_counted_once_however_deep_and_where_a_probe_fails(guard):
    begin = time.perf_counter()
    guard("a", lambda: guard("b", lambda: guard("c", time.sleep, 0.02)))
    whole = time.perf_counter() - begin
    assert 0.02 <= guard.spent <= whole

    def slow_failure():
        time.sleep(0.02)
        fail()

    guard("a", slow_failure)
    assert guard.spent >= 0.04
