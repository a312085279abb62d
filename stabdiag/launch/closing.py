"""What is written and said when the target has ended, however it ended."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.run import Run, RunInfo
from stabdiag.launch.child import Ending
from stabdiag.launch.listener import Listeners
from stabdiag.launch.voice import Voice

WIDEST = 120
"""Columns of a line, the prefix included; on a narrower terminal its own width."""

MARKS = {
    ".python": "no process imported torch",
    ".torch": "torch was imported, but no optimizer step and no backward pass was seen",
}


def close_run(
    run_dir: Path,
    info: RunInfo,
    ending: Ending,
    config: Configuration,
    listeners: Listeners,
    *,
    page: bool,
    voice: Voice,
) -> None:
    """Completes the run directory and says the closing lines.

    Nothing is raised but KeyboardInterrupt: what fails is told in one line, and the recorded data stay.
    """
    try:
        run, diagnosis = _complete(run_dir, info, ending, config)
        if page and run.steps:
            _write_page(run_dir, run, diagnosis)
        for line in closing_lines(run, diagnosis, ending):
            voice.say(line)
        listeners.ended(run, diagnosis)
    except StabdiagError as error:
        voice.complain(f"{error.message}; the run is kept in {run_dir}")
    except OSError as error:
        voice.complain(f"{run_dir} could not be completed: {error.strerror}; what was recorded is kept")
    except Exception as error:
        voice.complain(f"the report failed: {type(error).__name__}: {error}; the run is kept in {run_dir}")


def _complete(run_dir: Path, info: RunInfo, ending: Ending, config: Configuration) -> tuple[Run, Diagnosis]:
    from stabdiag.analysis.diagnose import diagnose, report_block
    from stabdiag.store.events import EventLog
    from stabdiag.store.findings import write_findings
    from stabdiag.store.flight import settle
    from stabdiag.store.info import write_info
    from stabdiag.store.reader import load

    ended = time.time()
    number = ending.signal.name if ending.signal else None
    info = replace(info, ended=ended, exit_status=ending.exit_status, signal=number)
    write_info(run_dir, info)
    data = {"exit_status": ending.exit_status, "signal": number, "message": f"the target {ending}"}
    EventLog(run_dir).append(Event("exit", ended, None, 0, data))
    run = load(run_dir)
    diagnosis = diagnose(run, config)
    died = f"the target {ending}" if number or ending.exit_status else ""
    if settle(run_dir, died, diagnosis.critical):
        run = load(run_dir)
        diagnosis = replace(diagnosis, run=report_block(run, diagnosis.incidents))
    write_findings(run_dir, diagnosis)
    return run, diagnosis


def _write_page(run_dir: Path, run: Run, diagnosis: Diagnosis) -> None:
    from stabdiag.render.page import write_page

    write_page(run, diagnosis, run_dir / "report.html")


def closing_lines(run: Run, diagnosis: Diagnosis, ending: Ending) -> Iterator[str]:
    """At most eight, without prefix."""
    from stabdiag.render.summary import summary_lines

    reached = _take_marks(run)
    if run.steps:
        width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST) - len("stabdiag: ")
        yield from summary_lines(run, diagnosis, width=width, encoding=sys.stderr.encoding)
        return
    yield f"no process trained: the target {ending}"
    why = _why_nothing(run)
    if why:
        yield why
    elif ending.exit_status == 0:
        yield reached


def _why_nothing(run: Run) -> str:
    """What the recorder itself said, empty where it said nothing."""
    for event in run.events_of("recorder-error"):
        return f"the recorder failed: {event.data.get('error')}"
    for event in run.events_of("coverage"):
        return f"{event.data.get('what')} was not recorded: {event.data.get('because')}"
    return ""


def _take_marks(run: Run) -> str:
    """How far the recorder came, by the marks that the bootstrap leaves in the run directory."""
    found = "no Python process was reached: `python -I`, `-E` and `-S` keep the recorder out"
    for mark, meaning in MARKS.items():
        path = (run.path or Path()) / mark
        if path.exists():
            found = meaning
            path.unlink(missing_ok=True)
    return found
