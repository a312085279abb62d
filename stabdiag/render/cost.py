"""What recording took of the training time, what it was allowed, and how much of the steps it saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.core.tier import Tier
from stabdiag.render.numbers import count, number

TIERS = tuple(tier.name.lower() for tier in Tier)
EARLY, FREE = 1000, 150.0
"""So many steps at first earn as if none were short: together the budget's share of so many seconds."""


@dataclass(frozen=True)
class Cost:
    """`percent` of the training time; `seconds` in all; `allowed` in words; `steps` by the name of their
    tier. None, and empty, where the run does not say."""

    percent: float | None
    seconds: float | None
    allowed: str
    steps: Mapping[str, int]

    @property
    def share(self) -> str:
        """`1.7 % (0.83 s)`."""
        if self.percent is None:
            return ""
        seconds = "" if self.seconds is None else f" ({number(round(self.seconds, 2))} s)"
        return f"{self.percent:.1f} %{seconds}"

    @property
    def spent_words(self) -> str:
        """`1.7 % of the time (0.83 s), budget 2 %`."""
        spent = self.share.replace("%", "% of the time")
        return ", ".join(filter(None, (spent, self.allowed)))

    @property
    def steps_words(self) -> str:
        """`1,791 steps fast, 200 standard, 9 slow`."""
        first, *rest = [(amount, tier) for tier, amount in self.steps.items()] or [(0, "")]
        if not first[0]:
            return ""
        return ", ".join(
            [f"{count(first[0], 'step')} {first[1]}", *(f"{count(amount)} {tier}" for amount, tier in rest)]
        )

    @property
    def words(self) -> str:
        """All that is known in one line, empty where nothing is."""
        return "; ".join(filter(None, (self.spent_words, self.steps_words)))


def cost(run: Run, diagnosis: Diagnosis) -> Cost:
    percent = diagnosis.run.get("overhead_percent")
    seconds = None
    if "run.overhead" in run and np.isfinite(run.table("run.overhead").first()).any():
        seconds = float(np.nansum(run.table("run.overhead").first(), dtype=np.float64))
    share = None if percent is None else float(percent)
    return Cost(share, seconds, _allowed(run, share), _steps(run))


def _allowed(run: Run, percent: float | None) -> str:
    configuration = run.info.configuration
    every = configuration.get("every")
    if every:
        return "every step whole" if every == 1 else f"1 step in {count(int(every))} whole"
    if "budget" not in configuration:
        return ""
    budget = configuration["budget"]
    if budget is None:
        return "no budget: every step whole"
    early = run.steps <= EARLY and percent is not None and percent > 100 * float(budget)
    free = f", and {number(FREE * float(budget))} s in the first thousand steps" if early else ""
    return f"budget {number(100 * float(budget))} %{free}"


def _steps(run: Run) -> dict[str, int]:
    """Number of steps at each tier, in the order of the tiers; only those that have any."""
    if "run.tier" not in run:
        return {}
    tiers = run.table("run.tier").first()
    known = tiers[np.isfinite(tiers)].astype(int)
    amounts = np.bincount(known[(known >= 0) & (known < len(TIERS))], minlength=len(TIERS))
    return {tier: int(amount) for tier, amount in zip(TIERS, amounts, strict=True) if amount}
