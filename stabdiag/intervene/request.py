"""What was asked for on the command line, and how it travels to the processes of the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stabdiag.core.errors import StabdiagError
from stabdiag.intervene.intervention import INTERVENTIONS, Intervention, usage


@dataclass(frozen=True, slots=True)
class Request:
    """One intervention; `start` is the optimizer step from which on it acts."""

    id: str
    value: float | None = None
    start: int = 0

    @classmethod
    def parse(cls, text: str) -> Request:
        """`id`, `id=value`, and either with `@step` after it. StabdiagError for anything else."""
        head, at, start = text.strip().partition("@")
        id, equals, value = head.partition("=")
        entry = INTERVENTIONS[id.strip()]
        if at and not start.strip().isdecimal():
            raise StabdiagError(
                f"after @ comes the step from which on {entry.id} acts, not {start!r}",
                f"for example: {_example(entry)}@200",
            )
        request = cls(entry.id, _number(entry, value) if equals else None, int(start) if at else 0)
        request._check(entry)
        return request

    def _check(self, entry: type[Intervention]) -> None:
        takes = entry.takes
        if takes is None and self.value is not None:
            raise StabdiagError(f"{entry.id} takes no value", f"write {usage(entry)}")
        if takes is not None and self.value is None and takes.default is None:
            raise StabdiagError(
                f"{entry.id} needs a value: {takes.meaning}", f"for example: --apply {_example(entry)}"
            )
        if takes is not None and self.value is not None:
            takes.check(entry.id, self.value)

    def made(self) -> Intervention:
        entry = INTERVENTIONS[self.id]
        default = entry.takes.default if entry.takes is not None else None
        return entry(self.value if self.value is not None else default or 0.0)

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value:.6g}"
        return f"{self.id}{value}{f'@{self.start}' if self.start else ''}"


@dataclass(frozen=True, slots=True)
class Acting:
    """All that was asked for; `guard`: protection by the run's own history."""

    apply: tuple[Request, ...] = ()
    guard: bool = False

    @classmethod
    def parse(cls, apply: Iterable[str] = (), guard: bool = False) -> Acting:
        return cls(tuple(Request.parse(text) for text in apply), guard)

    def __bool__(self) -> bool:
        return bool(self.apply) or self.guard

    def to_json(self) -> dict[str, Any]:
        return {"apply": [str(request) for request in self.apply], "guard": self.guard}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Acting:
        return cls.parse(record.get("apply", ()), bool(record.get("guard", False)))


def _example(entry: type[Intervention]) -> str:
    takes = entry.takes
    if takes is None:
        return entry.id
    if takes.default is not None:
        return f"{entry.id}={takes.default:g}"
    return f"{entry.id}={100 if takes.whole else 0.5 if takes.above < 0.5 < takes.most else 2}"


def _number(entry: type[Intervention], text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise StabdiagError(
            f"the value of {entry.id} is a number, not {text!r}", f"for example: --apply {_example(entry)}"
        ) from None
