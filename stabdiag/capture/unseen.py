"""Training that calls none of the places at which steps are seen."""

from __future__ import annotations

from stabdiag.capture.subject import Subject

WHAT = "training"
NO_BACKWARD = (
    "the optimizer steps, but no backward pass is seen: torch.autograd.grad and torch.func make none"
)
NO_STEP = "the weights move, but no step of an optimizer is seen: one that torch.compile runs calls no hooks"
LEAST = 3
WEIGHTS = 8


class UnseenSteps:
    """Says once why a training has no rows, until it has one."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._version: int | None = None
        self._steps = self._moves = 0
        self._told = False

    def step(self) -> None:
        """An optimizer has stepped, and no backward pass came before."""
        self._steps += 1
        if self._steps == LEAST:
            self._tell(NO_BACKWARD)

    def backward(self) -> None:
        """A backward pass begins, and no optimizer has stepped before."""
        weights = [self._subject.parameters[i] for i in self._subject.primary[:WEIGHTS]]
        version = sum(weight._version for weight in weights)
        self._moves += self._version is not None and version != self._version
        self._version = version
        if self._moves == LEAST:
            self._tell(NO_STEP)

    def _tell(self, because: str) -> None:
        if not self._told:
            self._told = True
            self._subject.event("coverage", what=WHAT, because=because)
