"""The whole measurement: record what is missing, judge everything, compare."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from stabdiag.zoo.matrix import confusion_svg
from stabdiag.zoo.outcome import Outcome, judge
from stabdiag.zoo.page import page
from stabdiag.zoo.plan import Part, cases
from stabdiag.zoo.rivals import rivals
from stabdiag.zoo.runner import recorded_cases, run_cases
from stabdiag.zoo.score import Score, Share

Told = Callable[[str, str], None]
"""Hears of each case that is done: its name, and what went wrong."""


def record_part(part: Part, rounds: int, folder: Path, jobs: int, told: Told) -> None:
    run_cases(cases(part, rounds), folder / part.id, jobs, lambda case, failure: told(case.name, failure))


def judge_part(part: Part, folder: Path, jobs: int, told: Told) -> Score:
    """The score of all that is recorded. Twins count as the healthy trainings that they are."""
    home = folder / part.id
    done = recorded_cases(home)
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = {pool.submit(judge, case, home): case for case in done}
        for ended in as_completed(running):
            outcome = ended.result()
            if outcome is not None:
                outcomes.append(outcome)
            told(running[ended].name, "" if outcome else "nothing was recorded")
    return Score(sorted(outcomes, key=lambda outcome: outcome.case.name))


def write_page(
    scores: Sequence[tuple[Part, Score]], folder: Path, output: Path, verified: dict[str, Share] | None = None
) -> None:
    """`output`, and the confusion matrix beside it. The last part is the judged one."""
    part, judged = scores[-1]
    picture = output.with_name(f"{output.stem}-confusion.svg")
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(confusion_svg(judged.confusion), encoding="utf-8")
    compared = rivals(judged.outcomes, folder / part.id)
    named = {part.id: score for part, score in scores}
    output.write_text(page(named, compared, picture.name, verified or {}), encoding="utf-8")
