from __future__ import annotations

import pytest

from stabdiag.core.cadence import DEFAULT_BUDGET, Cadence
from stabdiag.core.errors import StabdiagError


@pytest.mark.parametrize(
    ("written", "share"),
    [("2%", 0.02), ("0.5%", 0.005), ("0.02", 0.02), (0.1, 0.1), ("off", None), (" 3 % ", 0.03)],
)
def test_a_budget_is_a_share_of_the_time(written, share):
    assert Cadence.parse(written).budget == pytest.approx(share)


def test_without_a_word_it_is_two_per_cent():
    assert Cadence.parse() == Cadence() == Cadence(DEFAULT_BUDGET, None)


@pytest.mark.parametrize("written", ["much", "-1%", "0", "200%", "nan", "", "%"])
def test_anything_else_is_refused_with_an_example(written):
    with pytest.raises(StabdiagError, match="share of the step time") as refusal:
        Cadence.parse(written)
    assert "2%" in str(refusal.value.hint)


def test_every_is_one_or_more():
    with pytest.raises(StabdiagError, match="every is 1 or more"):
        Cadence.parse(every=0)
