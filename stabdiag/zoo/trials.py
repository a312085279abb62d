"""Whether the fixes that are advised cure: each fault that was named is replayed with them, and a placebo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.recovery import alarms
from stabdiag.core.config import Configuration
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run
from stabdiag.core.verification import PLACEBO, UNCHANGED, Verification
from stabdiag.launch.verify import Plan, plan, verify
from stabdiag.store.reader import load
from stabdiag.store.verification import read_verification, write_verification
from stabdiag.zoo.outcome import NEAR, Outcome
from stabdiag.zoo.plant import command
from stabdiag.zoo.score import Share

CURED = "verified"


@dataclass(frozen=True)
class Tried:
    """What became of the first fixes that are advised: each with whether it cured, None where that is a
    change of code other than the one that undoes what was planted. Of the latter the healthy twin tells.
    `placebo`: whether a tenth of the learning rate cured, None where nothing could be replayed."""

    cured: tuple[bool | None, ...]
    replayed: tuple[bool, ...] = ()
    placebo: bool | None = None


def try_fixes(outcome: Outcome, folder: Path, jobs: int, replay: bool = True) -> Tried | None:
    """None where no fix can be tried, where the fault did not come again, or where it would not in a replay
    by its owner, however often it is planted here. What was tried is kept beside the recording, and not tried
    again; without `replay` what was not is left out."""
    fault, right = outcome.fault, outcome.right
    if fault is None or right is None or right.severity < Severity.warning:
        return None
    if not fault.recurs or outcome.case.world > 1:
        return None
    home = folder / outcome.case.name
    first = right.fixes[:NEAR]
    result = read_verification(home)
    if result is None and (planned := _planned(outcome, home)) is not None:
        if not replay:
            return None
        result = _replayed(*planned, home, outcome.case.twin.name, jobs)
    if result is not None and not result.again:
        return None
    marks = {trial.id: trial.mark == CURED for trial in result.trials if trial.mark} if result else {}
    twin = folder / outcome.case.twin.name
    undoing = fault.fixes[:1] if fault.undoes else ()
    undone = {fix: _sound(twin) for fix in undoing if fix in first and fix not in marks}
    cured = tuple((undone | marks).get(fix) for fix in first)
    replayed = tuple(marks[fix] for fix in first if fix in marks)
    placebo = marks.get(PLACEBO) if replayed else None
    return None if all(one is None for one in cured) else Tried(cured, replayed, placebo)


def _planned(outcome: Outcome, home: Path) -> tuple[Run, Plan] | None:
    """With the first fixes of the incident that names the fault, as far as they can be applied."""
    assert outcome.right is not None
    run = load(home)
    run = replace(run, info=replace(run.info, command=command(outcome.case), cwd=str(Path.cwd())))
    try:
        planned = _of_the_first(plan(run, diagnose(run)), outcome.right.fixes[:NEAR])
    except StabdiagError:
        return None
    return (run, planned) if planned is not None else None


def _replayed(run: Run, planned: Plan, home: Path, twin: str, jobs: int) -> Verification | None:
    try:
        sound = load(home.parent / twin)
        result = verify(run, planned, Configuration(), jobs, sound, lambda variant, steps, ended: None)
    except StabdiagError:
        return None
    write_verification(home, result)
    return result


def _of_the_first(planned: Plan, fixes: Sequence[str]) -> Plan | None:
    kept = tuple(v for v in planned.variants if v.id in (UNCHANGED, PLACEBO, *fixes))
    return replace(planned, variants=kept) if len(kept) > len((UNCHANGED, PLACEBO)) else None


def _sound(twin: Path) -> bool:
    return not alarms(diagnose(load(twin)))


def shares(tried: Sequence[Tried]) -> dict[str, Share]:
    """By what was tried: how many faults it cured."""

    def known(values: Iterable[bool | None]) -> list[bool]:
        return [value for value in values if value is not None]

    replayed = [one for one in tried if one.replayed]
    return {
        "the first fix": Share.of_true(known(one.cured[0] for one in tried)),
        f"one of the first {NEAR}": Share.of_true(any(known(one.cured)) for one in tried),
        "the first of those that were replayed": Share.of_true(one.replayed[0] for one in replayed),
        "one of those that were replayed": Share.of_true(any(one.replayed) for one in replayed),
        "a placebo: a tenth of the learning rate": Share.of_true(known(one.placebo for one in replayed)),
    }
