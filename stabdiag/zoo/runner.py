"""Runs cases, one process each: several at a time, and none twice."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stabdiag.zoo.case import Case
from stabdiag.zoo.worker import TRUTH, record

LIMIT = 600.0
"""Seconds after which a case is given up."""


def recorded(case: Case, folder: Path) -> bool:
    """Whether the case was run to its end before."""
    return (folder / case.name / TRUTH).is_file()


def recorded_cases(folder: Path) -> list[Case]:
    """All cases that are there, in the order of their names."""
    truths = sorted(path for path in folder.glob(f"*/{TRUTH}") if not path.parent.is_symlink())
    return [Case.from_json(json.loads(truth.read_text(encoding="utf-8"))["case"]) for truth in truths]


def run_cases(cases: Sequence[Case], folder: Path, jobs: int, told: Callable[[Case, str], None]) -> None:
    """Records the cases that are not in `folder` yet. `told` hears of each that is there, and what went
    wrong."""
    ahead = []
    for case in cases:
        if recorded(case, folder):
            told(case, "")
        else:
            ahead.append(case)
    folder.mkdir(parents=True, exist_ok=True)
    # Each process is forked from one that has imported torch already, which takes longer than some cases.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([record.__module__])

    def run(case: Case) -> str:
        process = context.Process(target=record, args=(case, folder))
        process.start()
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
            return f"it did not end within {LIMIT:g} s"
        return f"its process ended with {process.exitcode}" if process.exitcode else ""

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, case): case for case in ahead}
        for done in as_completed(running):
            told(running[done], done.result())
