"""Which steps are recorded whole."""

from __future__ import annotations

import math

FIRST = 5
AFTER_TROUBLE = 5
REST = 50
JUMP = 4.0


class Schedule:
    """Every `every`-th step, the first five, and the five after trouble.

    Trouble is a non-finite loss or gradient norm, or a gradient norm four times its running geometric
    mean. It asks for more steps at most once in fifty, so that a run that never recovers stays cheap.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._dense_until = FIRST
        self._rest_until = 0
        self._log_norm: float | None = None

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step < self._dense_until

    def observe(self, step: int, loss: float, grad_norm: float) -> None:
        """Takes in the loss and the gradient norm of a finished step; NaN where not known."""
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
