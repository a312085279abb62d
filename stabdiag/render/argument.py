"""What speaks for the cause of an incident, and what against it."""

from __future__ import annotations

from dataclasses import dataclass

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.diagnosis import Incident
from stabdiag.core.finding import CauseRanked, Finding

BUT = "but "
LIKELY = 0.05


@dataclass(frozen=True)
class Argument:
    """`rivals` explain the finding too, the likelier first; for those `unlikely` little or nothing speaks."""

    pro: tuple[str, ...]
    contra: tuple[str, ...]
    rivals: tuple[CauseRanked, ...]
    unlikely: tuple[str, ...]


def argument(root: Finding, incident: Incident) -> Argument:
    """Evidence is words with semicolons between; what begins with `but` speaks against."""
    cause = incident.cause
    parts = cause.because.split("; ") if cause else []
    known = SIGNATURES[root.signature].causes if root.signature in SIGNATURES else ()
    rivals = tuple(r for r in root.causes if (cause is None or r.id != cause.id) and r.confidence >= LIKELY)
    told = {r.id for r in rivals} | ({cause.id} if cause else set())
    return Argument(
        tuple(part for part in parts if part and not part.startswith(BUT)),
        tuple(part.removeprefix(BUT) for part in parts if part.startswith(BUT)),
        rivals,
        tuple(id for id in known if id not in told),
    )
