"""Fixes are tried on the zoo's own cases."""

from __future__ import annotations

import pytest

from stabdiag.core.finding import Severity
from stabdiag.zoo import trials
from stabdiag.zoo.case import Case
from stabdiag.zoo.fault import FAULTS, Planted
from stabdiag.zoo.outcome import Outcome, Told, judge
from stabdiag.zoo.runner import run_cases
from stabdiag.zoo.score import Share
from stabdiag.zoo.trials import Tried, shares, try_fixes


@pytest.mark.slow
def test_a_lower_learning_rate_cures_one_that_is_too_high(tmp_path):
    case = Case("lr-too-high", "regression", "adamw", 1, 300.0, every=10)
    run_cases([case, case.twin], tmp_path, 2, lambda case, failure: None)
    outcome = judge(case, tmp_path, lead=False)
    assert outcome.right is not None
    assert try_fixes(outcome, tmp_path, 2, replay=False) is None
    tried = try_fixes(outcome, tmp_path, 2)
    assert any(tried.cured)
    assert try_fixes(outcome, tmp_path, 2) == tried, "tried once, it is read from then on"


@pytest.mark.slow
def test_of_a_change_of_code_that_undoes_the_fault_the_healthy_twin_tells(tmp_path):
    case = Case("raw-input", "mlp", "adam", 1, 1000.0, every=10)
    run_cases([case, case.twin], tmp_path, 2, lambda case, failure: None)
    outcome = judge(case, tmp_path, lead=False)
    assert outcome.right is not None
    tried = try_fixes(outcome, tmp_path, 2)
    assert outcome.right.fixes[0] == "normalize-input"
    assert (tried.cured[0], tried.placebo) == (True, None)


def named(fault):
    """An outcome in which the fault was named, and its true fixes were advised."""
    entry = FAULTS[fault]
    right = Told(entry.signatures[0], Severity.critical, 0, (), entry.causes, entry.fixes)
    case = Case(fault, "mlp", "adam", 1, entry.doses[-1])
    return Outcome(case, Planted(), 100, 1, (right,))


@pytest.fixture
def nothing_replayed(monkeypatch):
    monkeypatch.setattr(trials, "_planned", lambda outcome, home: None)
    monkeypatch.setattr(trials, "_sound", lambda twin: True)


@pytest.mark.parametrize("fault", ["flipped-bit", "corrupted-row", "stalled-loader"])
def test_a_fault_of_the_machine_is_not_tried(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_planned", lambda *_: pytest.fail("a replay was planned"))
    assert try_fixes(named(fault), tmp_path, 1) is None


def test_the_twin_tells_of_the_first_fix_alone(tmp_path, nothing_replayed):
    assert try_fixes(named("raw-input"), tmp_path, 1) == Tried((True,))
    assert try_fixes(named("double-softmax"), tmp_path, 1).cured == (True,)


@pytest.mark.parametrize("fault", ["lost-optimizer-state", "shifted-data", "outlier-channel"])
def test_the_twin_tells_nothing_where_no_fix_undoes_what_was_planted(fault, tmp_path, nothing_replayed):
    assert try_fixes(named(fault), tmp_path, 1) is None


def test_shares_count_faults():
    tried = [
        Tried((False, True), (False, True), False),
        Tried((True, None), (True,), True),
        Tried((None, True)),
        Tried((False, None), (False,), False),
    ]
    assert shares(tried) == {
        "the first fix": Share(1, 3),
        "one of the first 3": Share(3, 4),
        "the first of those that were replayed": Share(1, 3),
        "one of those that were replayed": Share(2, 3),
        "a placebo: a tenth of the learning rate": Share(1, 3),
    }
