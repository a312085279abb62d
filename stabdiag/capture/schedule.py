"""Which tier a step is recorded at."""

from __future__ import annotations

import math

from stabdiag.capture.budget import Budget
from stabdiag.capture.plan import Follower, Leader
from stabdiag.core.cadence import Cadence
from stabdiag.core.tier import Tier

FIRST = 5
AFTER_TROUBLE = 5
REST = 50
JUMP = 4.0
SLOW_EVERY = 10
RARE_EVERY = 50


class Schedule:
    """The standard tier for the first five steps and the five after trouble; else what the cadence says.

    With a fixed one every `every`-th step is of the standard tier, every tenth of those of the slow one,
    every fiftieth of the rare one, and all others are fast. Without, the budget decides.

    Trouble is a non-finite loss or gradient norm, or a gradient norm four times its running geometric
    mean. It asks for more steps at most once in fifty, so that a run that never recovers stays cheap.

    Under a budget the processes of a world follow one `plan`; a fixed cadence is the same for all anyway.
    """

    def __init__(self, cadence: Cadence, plan: Leader | Follower | None = None) -> None:
        self._every = cadence.every or (None if cadence.budget else 1)
        self._budget = Budget(cadence.budget) if self._every is None and cadence.budget else None
        self._plan = plan
        self._step = 0
        self._dense_until = FIRST
        self._rest_until = 0
        self._log_norm: float | None = None

    def choose(self, step: int) -> Tier:
        self._step = step
        tier = self._budgeted(step, self._budget) if self._budget is not None else self._fixed(step)
        return max(tier, Tier.STANDARD) if step < self._dense_until else tier

    def _budgeted(self, step: int, budget: Budget) -> Tier:
        return budget.choose(step) if self._plan is None else self._plan.choose(step, budget.choose)

    def _fixed(self, step: int) -> Tier:
        number, rest = divmod(step, self._every or 1)
        if rest:
            return Tier.FAST
        if number and number % RARE_EVERY == 0:
            return Tier.RARE
        return Tier.SLOW if number and number % SLOW_EVERY == 0 else Tier.STANDARD

    def charge(self, tier: Tier, spent: float, duration: float) -> None:
        """A step of `tier` took `duration` seconds, `spent` of them in the recorder."""
        if self._budget is not None:
            self._budget.charge(self._step, tier, spent, duration)

    def observe(self, step: int, loss: float, grad_norm: float) -> None:
        """Takes in the loss and the gradient norm of a finished step; 0 where not known."""
        if self._in_trouble(loss, grad_norm) and step >= self._rest_until:
            self._dense_until = step + 1 + AFTER_TROUBLE
            self._rest_until = step + REST

    def _in_trouble(self, loss: float, grad_norm: float) -> bool:
        if not math.isfinite(grad_norm) or not math.isfinite(loss):
            return True
        if grad_norm <= 0:
            return False
        log = math.log(grad_norm)
        before = self._log_norm
        self._log_norm = log if before is None else 0.9 * before + 0.1 * log
        return before is not None and log - before > math.log(JUMP)
