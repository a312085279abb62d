"""Whether the fixes that are advised cure: each fault that was named is replayed with them, and a placebo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.config import Configuration
from stabdiag.core.errors import StabdiagError
from stabdiag.core.verification import PLACEBO
from stabdiag.launch.verify import plan, verify
from stabdiag.store.reader import load
from stabdiag.store.verification import read_verification, write_verification
from stabdiag.zoo.outcome import NEAR, Outcome
from stabdiag.zoo.plant import command
from stabdiag.zoo.score import Share

CURED = "verified"


@dataclass(frozen=True)
class Tried:
    """What became of the fixes that can be applied while training, in the order in which they are advised,
    and whether a tenth of the learning rate did as well."""

    cured: tuple[bool, ...]
    placebo: bool


def try_fixes(outcome: Outcome, folder: Path, jobs: int) -> Tried | None:
    """None where no fix of the case can be applied while it trains, or where it cannot be replayed. What was
    tried is kept beside the recording, and not tried again."""
    if outcome.right is None or outcome.case.world > 1:
        return None
    home = folder / outcome.case.name
    result = read_verification(home)
    if result is None:
        run = load(home)
        run = replace(run, info=replace(run.info, command=command(outcome.case), cwd=str(Path.cwd())))
        try:
            planned = plan(run, diagnose(run))
            if len(planned.variants) < NEAR:
                return None
            twin = load(folder / outcome.case.twin.name)
            result = verify(run, planned, Configuration(), jobs, twin, lambda variant, steps, ended: None)
        except StabdiagError:
            return None
        write_verification(home, result)
    marks = {trial.id: trial.mark for trial in result.trials}
    tried = [fix for fix in outcome.right.fixes if fix in marks]
    return Tried(tuple(marks[fix] == CURED for fix in tried), marks.get(PLACEBO) == CURED) if tried else None


def shares(tried: Sequence[Tried]) -> dict[str, Share]:
    """By what was tried: how many faults it cured."""
    return {
        "the first fix": Share.of_true(one.cured[0] for one in tried),
        f"one of the first {NEAR}": Share.of_true(any(one.cured[:NEAR]) for one in tried),
        "a placebo: a tenth of the learning rate": Share.of_true(one.placebo for one in tried),
    }
