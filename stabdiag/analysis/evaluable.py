"""What a detector raises where a run does not hold enough to judge."""

from __future__ import annotations


class NotEvaluable(Exception):
    """The signature cannot be judged on this run; `because` says why, to follow "skipped:"."""

    def __init__(self, because: str) -> None:
        super().__init__(because)
        self.because = because
