"""What a signature, a cause and a fix are, and the decorators that declare them, one file each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stabdiag.core.errors import UnknownName
from stabdiag.core.finding import Finding
from stabdiag.core.html import TITLES
from stabdiag.core.registry import Registry
from stabdiag.core.run import Run

Detector = Callable[..., Iterable[Finding]]
Example = Callable[[np.random.Generator], Run]


@dataclass
class Signature:
    """A named pattern of instability.

    `needs` lists the series without which it is skipped; `explains` the signatures that follow from
    it; `causes` the candidates. The keyword-only parameters of `detect` are its thresholds, and its
    docstring is its whole documentation.
    """

    id: str
    title: str
    needs: tuple[str, ...]
    explains: tuple[str, ...]
    causes: tuple[str, ...]
    detect: Detector
    fires: list[Example] = field(default_factory=list)
    quiet: list[Example] = field(default_factory=list)

    @property
    def thresholds(self) -> dict[str, float]:
        parameters = inspect.signature(self.detect).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.detect) or ""

    def fires_on(self, example: Example) -> Example:
        """Declares a synthetic run on which the signature fires."""
        self.fires.append(example)
        return example

    def quiet_on(self, example: Example) -> Example:
        """Declares a near miss: a synthetic run on which it stays quiet."""
        self.quiet.append(example)
        return example

    def __call__(self, run: Run, thresholds: Mapping[str, float] | None = None) -> Iterator[Finding]:
        """The findings in `run`; an unknown threshold raises UnknownName."""
        for name in thresholds or {}:
            if name not in self.thresholds:
                raise UnknownName(f"threshold of {self.id}", name, self.thresholds)
        for finding in self.detect(run, **(thresholds or {})):
            yield replace(finding, signature=self.id)


@dataclass(frozen=True)
class Weight:
    """How well the evidence of a run supports a cause: `support` in 0..1, and the evidence in words."""

    support: float
    because: str


@dataclass(frozen=True)
class Cause:
    """`weigh` looks for evidence for and against in the run, None where it does not apply.

    `fixes` cure it, the best first. `moves_first` are the series (globs) that leave their healthy band
    first where this is the cause, empty where that tells nothing; `lead` is the least and the most
    number of steps by which they do so before the loss. `of_the_task` where it is in what is computed, and
    no course of the training: it alone explains a value that cannot be, the fact `impossible` of a finding.
    The docstring of `weigh` is the documentation.
    """

    id: str
    title: str
    fixes: tuple[str, ...]
    weigh: Callable[[Run, Finding], Weight | None]
    moves_first: tuple[str, ...] = ()
    lead: tuple[float, float] = (0, math.inf)
    of_the_task: bool = False

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.weigh) or ""


@dataclass(frozen=True)
class Change:
    """A fix worded with the numbers of one run; `code` is what to paste in plain PyTorch."""

    text: str
    code: str
    runtime: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fix:
    """`propose` words the fix for a run, None where it cannot help. Its docstring says what the fix
    does, what it costs and how to see that it worked."""

    id: str
    title: str
    propose: Callable[[Run, Finding], Change | None]

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.propose) or ""


SIGNATURES: Registry[Signature] = Registry("signature", "stabdiag.analysis.signatures")
CAUSES: Registry[Cause] = Registry("cause", "stabdiag.analysis.causes")
FIXES: Registry[Fix] = Registry("fix", "stabdiag.analysis.fixes")


def signature(
    id: str,
    *,
    title: str,
    needs: Sequence[str],
    causes: Sequence[str],
    explains: Sequence[str] = (),
) -> Callable[[Detector], Signature]:
    def declare(detect: Detector) -> Signature:
        entry = Signature(id, title, tuple(needs), tuple(explains), tuple(causes), detect)
        SIGNATURES.add(entry)
        TITLES["signature", id] = title
        return entry

    return declare


def cause(
    id: str,
    *,
    title: str,
    fixes: Sequence[str],
    moves_first: Sequence[str] = (),
    lead: tuple[float, float] = (0, math.inf),
    of_the_task: bool = False,
) -> Callable[[Any], Cause]:
    def declare(weigh: Callable[[Run, Finding], Weight | None]) -> Cause:
        entry = Cause(id, title, tuple(fixes), weigh, tuple(moves_first), lead, of_the_task)
        CAUSES.add(entry)
        TITLES["cause", id] = title
        return entry

    return declare


def fix(id: str, *, title: str) -> Callable[[Any], Fix]:
    def declare(propose: Callable[[Run, Finding], Change | None]) -> Fix:
        entry = Fix(id, title, propose)
        FIXES.add(entry)
        TITLES["fix", id] = title
        return entry

    return declare
