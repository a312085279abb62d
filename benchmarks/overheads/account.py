"""What stabdiag says of what it did in a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Account(NamedTuple):
    """A number a step: `tier` (0 none, 1 fast, 2 standard, 3 slow, 4 rare), and seconds."""

    tier: NDArray[np.int64]
    overhead: NDArray[np.float64]
    step_time: NDArray[np.float64]


def account_of(folder: Path) -> Account | None:
    """Of the run in `folder/run`; None where there is none."""
    if not (folder / "run").exists():
        return None
    import stabdiag

    run = stabdiag.load(folder / "run")
    tier, overhead, step_time = (
        run.table(f"run.{name}").first() for name in ("tier", "overhead", "step_time")
    )
    return Account(tier.astype(np.int64), overhead.astype(np.float64), step_time.astype(np.float64))
