"""What interventions see of forward and backward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stabdiag.capture.subject import Subject
from stabdiag.intervene.ledger import Ledger, Scene


class Forward(Scene):
    """`scaler` is the script's gradient scaler, None where there is none. Hooks that an intervention sets
    call its methods through `guard`, so that an error in them never reaches the script."""

    def __init__(
        self,
        subject: Subject,
        number: int,
        ledger: Ledger,
        stop: Callable[[str], None],
        scaler: Any,
        guard: Callable[..., Any],
    ) -> None:
        super().__init__(subject, number, ledger, stop)
        self.scaler = scaler
        self.guard = guard
