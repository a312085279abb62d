"""A token bucket a tier: recording is paid for with a share of the time that training takes."""

from __future__ import annotations

from collections import deque
from statistics import median

from stabdiag.core.tier import Tier

SHARES = {Tier.FAST: 0.5, Tier.STANDARD: 0.3, Tier.SLOW: 0.1, Tier.RARE: 0.1}
"""Of the income. What a full bucket cannot hold goes to the standard tier."""
DEAREST_FIRST = sorted(SHARES, reverse=True)
HELD = {Tier.FAST: 2, Tier.STANDARD: 5, Tier.SLOW: 1.5, Tier.RARE: 1.5}
"""Steps of its tier that a bucket can hold the price of."""
APART = {Tier.FAST: 1, Tier.STANDARD: 1, Tier.SLOW: 50, Tier.RARE: 50}
"""Least distance of two steps of a tier."""
GUESS = {Tier.FAST: 0.01, Tier.STANDARD: 0.1, Tier.SLOW: 0.3, Tier.RARE: 8.0}
"""Price of a step before one was seen, in durations of a bare step."""
FREE = 5
YOUNG = 1000
SHORTEST = 0.15
MEMORY = 15


class Recent:
    """The last fifteen of some numbers."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=MEMORY)
        self._median: float | None = None

    def append(self, value: float) -> None:
        self._values.append(value)
        self._median = None

    def __bool__(self) -> bool:
        return bool(self._values)

    def median(self) -> float:
        """Kept until the next number comes: it is asked for more often than it changes."""
        if self._median is None:
            self._median = median(self._values)
        return self._median


class Budget:
    """Each step earns `share` of its duration; a tier is chosen when its bucket holds what it costs.

    What a step cost is charged as measured, so that debts are paid back: the total stays within the share
    but for one step of each tier. The price of a tier is the median of its last fifteen. To the seconds
    in the recorder's own code comes what hooks cost elsewhere: as much as its steps last longer than
    cheaper ones, at most the same again.

    The first five steps, which are recorded whole in any case, are free. A short script is seen whole, at
    the price of three seconds at most: the first thousand steps earn as if none took less than 150 ms.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._credit = dict.fromkeys(SHARES, 0.0)
        self._costs = {tier: Recent() for tier in SHARES}
        self._rest = {tier: Recent() for tier in Tier}
        self._last = dict.fromkeys(SHARES, -max(APART.values()))

    def choose(self, step: int) -> Tier:
        for tier in DEAREST_FIRST:
            if step - self._last[tier] >= APART[tier] and 0 < self._price(tier) <= self._credit[tier]:
                return tier
        return Tier.NONE

    def _price(self, tier: Tier) -> float:
        costs = self._costs[tier]
        return costs.median() if costs else GUESS[tier] * self._bare()

    def _bare(self) -> float:
        """Seconds of a step without the recorder: of the cheapest tier of which some were seen."""
        return next((times.median() for times in self._rest.values() if times), 0.0)

    def charge(self, step: int, tier: Tier, spent: float, duration: float) -> None:
        rest = max(duration - spent, 0.0)
        self._rest[tier].append(rest)
        if tier:
            cost = spent + min(max(self._rest[tier].median() - self._bare(), 0.0), spent)
            self._costs[tier].append(cost)
            self._credit[tier] -= 0.0 if step < FREE else cost
            self._last.update({lower: step for lower in SHARES if lower <= tier})
        else:
            self._credit[Tier.FAST] -= spent
        self._earn(self._share * max(rest, SHORTEST if step < YOUNG else 0.0))

    def _earn(self, income: float) -> None:
        spare = 0.0
        for tier, share in SHARES.items():
            full = HELD[tier] * self._price(tier)
            credit = self._credit[tier] + income * share
            if tier is not Tier.STANDARD:
                spare += max(credit - full, 0.0)
                credit = min(credit, full)
            self._credit[tier] = credit
        full = HELD[Tier.STANDARD] * self._price(Tier.STANDARD)
        self._credit[Tier.STANDARD] = min(self._credit[Tier.STANDARD] + spare, full)
