"""Fixes are tried on the zoo's own cases."""

from __future__ import annotations

import pytest

from stabdiag.zoo.case import Case
from stabdiag.zoo.outcome import judge
from stabdiag.zoo.runner import run_cases
from stabdiag.zoo.score import Share
from stabdiag.zoo.trials import Tried, shares, try_fixes


@pytest.mark.slow
def test_a_lower_learning_rate_cures_one_that_is_too_high(tmp_path):
    case = Case("lr-too-high", "regression", "adamw", 1, 300.0, every=10)
    run_cases([case, case.twin], tmp_path, 2, lambda case, failure: None)
    outcome = judge(case, tmp_path, lead=False)
    assert outcome.right is not None
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
