"""How right the rules of other tools are on the cases that stabdiag is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stabdiag.core.run import Run
from stabdiag.store.reader import load
from stabdiag.zoo.baseline import BASELINES, Alarm
from stabdiag.zoo.outcome import Outcome
from stabdiag.zoo.score import Rate, Score, Share, proper


@dataclass(frozen=True)
class Rival:
    """`seen`: faults after whose onset anything was raised. `named`: those whose kind one of its rules means.
    `precision`: alarms that name the fault they are raised in, each rule once a run. `macro_f1` is over all
    signatures that were planted, also those of which it knows nothing."""

    title: str
    seen: Share
    named: Share
    precision: Share
    macro_f1: float
    disturbed: Share
    false_alarms: Rate


def rivals(outcomes: Sequence[Outcome], folder: Path) -> list[Rival]:
    score = Score(outcomes)
    judged = [*score.faults, *score.controls]
    raised: dict[str, dict[Outcome, list[Alarm]]] = {entry.id: {} for entry in BASELINES}
    for outcome in judged:
        run = load(folder / outcome.case.name)
        for entry in BASELINES:
            raised[entry.id][outcome] = _alarms(entry.alarms, run)
    return [_rival(entry.title, raised[entry.id], score) for entry in BASELINES]


def _alarms(alarms: object, run: Run) -> list[Alarm]:
    with np.errstate(all="ignore"):
        return list(alarms(run))  # type: ignore[operator]


def _rival(title: str, raised: dict[Outcome, list[Alarm]], score: Score) -> Rival:
    seen = [any(_after(alarm, o) for alarm in raised[o]) for o in score.faults]
    named = {o: any(_names(alarm, o) for alarm in raised[o]) for o in score.faults}
    false = sum(len(_wrong(alarms, o)) for o, alarms in raised.items())
    hits = sum(named.values())
    return Rival(
        title,
        Share.of_true(seen),
        Share.of_true(named.values()),
        Share(hits, hits + false),
        _macro_f1(raised, named, score),
        Share.of_true(bool(raised[o]) for o in score.controls),
        Rate(sum(len(raised[o]) for o in score.controls), sum(o.steps for o in score.controls)),
    )


def _after(alarm: Alarm, outcome: Outcome) -> bool:
    return outcome.planted is not None and alarm.step >= outcome.planted.step - outcome.gap


def _names(alarm: Alarm, outcome: Outcome) -> bool:
    fault = outcome.fault
    return fault is not None and _after(alarm, outcome) and bool({*alarm.means} & {*fault.signatures})


def _wrong(alarms: Sequence[Alarm], outcome: Outcome) -> dict[str, Alarm]:
    """The first alarm of each rule that names nothing true, by rule."""
    fault = outcome.fault
    true = {*fault.signatures, *fault.follows} if fault else set()
    right = {alarm.rule for alarm in alarms if _after(alarm, outcome) and {*alarm.means} & true}
    return {alarm.rule: alarm for alarm in reversed(alarms) if alarm.rule not in right}


def _macro_f1(raised: dict[Outcome, list[Alarm]], named: dict[Outcome, bool], score: Score) -> float:
    names = sorted({proper(o) for o in score.faults})
    f1 = []
    for name in names:
        own = [o for o in score.faults if proper(o) == name]
        found = sum(named[o] for o in own)
        false = sum(name in a.means for o, alarms in raised.items() for a in _wrong(alarms, o).values())
        f1.append(2 * found / max(found + len(own) + false, 1))
    return float(np.mean(f1)) if f1 else float("nan")
