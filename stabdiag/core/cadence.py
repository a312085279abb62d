"""How much a run may record: a share of the step time, or every k-th step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stabdiag.core.errors import StabdiagError

DEFAULT_BUDGET = 0.02
MOST = 1.0
MOST_BATCHES = 64


@dataclass(frozen=True, slots=True)
class Cadence:
    """`every`: whole at each that many steps, whatever it costs. Without it `budget` is the share of the
    step time that recording may take; None is no limit: every step whole. The batches of the last
    `keep_batches` steps are held in memory for the flight record."""

    budget: float | None = DEFAULT_BUDGET
    every: int | None = None
    keep_batches: int = 0

    @classmethod
    def parse(
        cls, budget: str | float | None = None, every: int | None = None, keep_batches: int = 0
    ) -> Cadence:
        """`budget` as a user writes it: `2%`, `0.02` or `off`. StabdiagError for anything else."""
        if not 0 <= keep_batches <= MOST_BATCHES:
            raise StabdiagError(f"up to {MOST_BATCHES} batches can be kept, not {keep_batches}")
        if every is not None and every < 1:
            raise StabdiagError(f"every is 1 or more, not {every}", "for example: every 10")
        share = DEFAULT_BUDGET if budget is None else _share(str(budget).strip())
        return cls(share, every, keep_batches)

    def to_json(self) -> dict[str, Any]:
        return {"budget": self.budget, "every": self.every, "keep_batches": self.keep_batches}


def _share(text: str) -> float | None:
    if text == "off":
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= MOST:
        raise StabdiagError(
            f"a budget is a share of the step time, not {text!r}",
            "for example: 2%, 0.5%, or off to record every step whole",
        )
    return share
