from __future__ import annotations

from collections import Counter

import pytest

from stabdiag.capture.budget import FREE, SHORTEST, YOUNG, Budget
from stabdiag.core.tier import Tier

COSTS = {Tier.NONE: 0.0001, Tier.FAST: 0.01, Tier.STANDARD: 0.1, Tier.SLOW: 0.3, Tier.RARE: 5.0}
"""Of a bare step, as on a small model."""


def simulate(share: float, steps: int, bare: float, costs=COSTS, hidden: float = 0.0):
    """Share of the time spent in the recorder, and the tiers chosen, where a recorded step costs `costs`
    (in bare steps) and slows the rest of it by `hidden` times as much."""
    budget, spent, tiers = Budget(share), 0.0, []
    for step in range(steps):
        tier = budget.choose(step)
        cost = costs[tier] * bare
        slowed = hidden * cost if tier >= Tier.STANDARD else 0.0
        budget.charge(step, tier, cost, bare + slowed + cost)
        spent += cost + slowed
        tiers.append(tier)
    return spent / (steps * bare), Counter(tiers)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_what_is_spent_keeps_to_the_share(share, hidden):
    spent, _ = simulate(share, 5000, 0.2, hidden=hidden)
    assert spent <= share * 1.05 + COSTS[Tier.RARE] / 5000
    assert spent >= share * 0.7


def test_after_two_hundred_steps_it_is_within_three_tenths_of_a_point():
    spent, _ = simulate(0.02, 200, 0.17)
    assert spent <= 0.023


def test_every_tier_has_its_turn():
    _, tiers = simulate(0.02, 20_000, 0.2)
    assert tiers[Tier.FAST] > 15_000
    assert tiers[Tier.STANDARD] > 500
    assert tiers[Tier.SLOW] >= 20
    assert tiers[Tier.RARE] >= 5


def test_where_recording_is_cheap_every_step_is_recorded_whole():
    cheap = {tier: cost / 1000 for tier, cost in COSTS.items()}
    _, tiers = simulate(0.02, 2000, 1.0, cheap)
    assert tiers[Tier.NONE] + tiers[Tier.FAST] < 20


def test_where_even_the_fast_tier_is_dear_it_is_thinned():
    dear = {**{tier: 10 * cost for tier, cost in COSTS.items()}, Tier.NONE: 0.0}
    spent, tiers = simulate(0.02, 20_000, 0.2, dear)
    assert spent <= 0.022
    assert tiers[Tier.NONE] > tiers[Tier.FAST] > 500


def test_a_short_script_is_seen_whole_for_three_seconds_at_most():
    dear = {Tier.NONE: 0.03, Tier.FAST: 0.3, Tier.STANDARD: 1.5, Tier.SLOW: 3.0, Tier.RARE: 8.0}
    spent, tiers = simulate(0.02, YOUNG, 0.003, dear)
    assert tiers[Tier.NONE] < YOUNG / 5
    assert tiers[Tier.STANDARD] > 50
    assert spent * YOUNG * 0.003 <= 0.02 * SHORTEST * YOUNG + 0.05


def test_a_debt_is_paid_back():
    budget, chosen = Budget(0.02), []
    for step in range(FREE, 400):
        tier = budget.choose(step)
        chosen.append(tier)
        dear = 1.0 if step == FREE else COSTS[tier] * 0.2
        budget.charge(step, Tier.STANDARD if step == FREE else tier, dear, 0.2 + dear)
    assert Tier.STANDARD not in chosen[1:100]
