"""verification.json: which fixes of a run were tried in replays of it, and what became of them."""

from __future__ import annotations

from pathlib import Path

from stabdiag.core.errors import DamagedRun
from stabdiag.core.verification import SCHEMA, Verification
from stabdiag.store.files import read, replace

NAME = "verification.json"


def write_verification(run_dir: Path, verification: Verification) -> None:
    """Whoever reads meanwhile sees the old one or the new. Raises OSError."""
    replace(run_dir / NAME, verification.to_json())


def read_verification(run_dir: Path | None) -> Verification | None:
    """None where there is none that can be read."""
    if run_dir is None:
        return None
    try:
        return Verification.from_json(read(run_dir / NAME, SCHEMA))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedRun):
        return None
