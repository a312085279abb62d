"""What `stabdiag check` decided."""

from __future__ import annotations

from dataclasses import dataclass

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding


@dataclass(frozen=True)
class Gate:
    """`failing` are the findings that fail the check, of those of `diagnosis`; `known` those that a baseline
    has as well, None without one. `evaluated` are the signatures that could be judged. `crash` tells how the
    run ended where nothing else explains that it failed, else it is empty."""

    diagnosis: Diagnosis
    failing: tuple[Finding, ...]
    evaluated: tuple[str, ...]
    known: tuple[Finding, ...] | None = None
    crash: str = ""

    @property
    def passed(self) -> bool:
        return not self.failing and not self.crash
