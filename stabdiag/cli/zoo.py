"""`stabdiag zoo`: measures the analyzer on faults of known truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stabdiag.zoo.score import Score, Share


@click.command()
@click.option("--full", is_flag=True, help="Both parts, all doses and several seeds: some hours.")
@click.option(
    "--rounds", type=click.IntRange(min=1), metavar="N", help="Cases of each fault.  [default: 1; full: 6]"
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="Cases at a time."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("stabdiag-zoo"),
    show_default=True,
    metavar="DIR",
    help="Where the recordings are kept; what is there is not made again.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("accuracy.md"),
    show_default=True,
    metavar="PATH",
    help="The page to write; the confusion matrix comes beside it.",
)
@click.option("--no-record", is_flag=True, help="Judge what is recorded, and tried, already.")
@click.option(
    "--fixes", is_flag=True, help="Replay each fault that was named with the fixes that are advised."
)
def zoo(
    full: bool, rounds: int | None, jobs: int, folder: Path, output: Path, no_record: bool, fixes: bool
) -> None:
    """Train small models with faults and without, and measure how right the diagnosis is.

    Without options the judged part once, in about ten minutes on two cores. It may be interrupted, and goes
    on where it was.
    """
    from stabdiag.zoo.plan import JUDGED, PARTS, cases
    from stabdiag.zoo.runner import recorded_cases
    from stabdiag.zoo.survey import judge_part, record_part, write_page

    parts = PARTS if full else (JUDGED,)
    rounds = rounds or (6 if full else 1)
    scores = []
    with _Bars() as bars:
        for part in parts:
            planned = len(cases(part, rounds))
            if not no_record:
                record_part(part, rounds, folder, jobs, bars.add(f"record {part.id}", planned))
            done = len(recorded_cases(folder / part.id))
            scores.append((part, judge_part(part, folder, jobs, bars.add(f"judge {part.id}", done))))
    verified = _tried(scores[-1][1], folder / parts[-1].id, jobs, not no_record) if fixes else {}
    write_page(scores, folder, output, verified)
    judged = scores[-1][1]
    click.echo(f"macro F1 {judged.macro_f1:.2f}, precision {judged.precision.value:.2f}, {output}")


def _tried(score: Score, home: Path, jobs: int, replay: bool) -> dict[str, Share]:
    from stabdiag.zoo.trials import shares, try_fixes

    with _Bars() as bars:
        told = bars.add("try fixes", len(score.found))
        tried = []
        for outcome in score.found:
            one = try_fixes(outcome, home, jobs, replay)
            tried += [one] if one else []
            told(outcome.case.name, "")
    return shares(tried)


class _Bars:
    """Bars of progress on stderr, and what went wrong above them."""

    def __enter__(self) -> _Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console)
        self._progress.start()
        return self

    def add(self, name: str, planned: int) -> Callable[[str, str], None]:
        bar = self._progress.add_task(name, total=planned)

        def told(case: str, failure: str) -> None:
            self._progress.advance(bar)
            if failure:
                self._console.print(f"stabdiag: {case}: {failure}", markup=False)

        return told

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
