"""`stabdiag verify`: tries the fixes of a run in replays of it, and says which cure it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.recovery import alarms, judge, level_at, of_updates, yardstick
from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Severity
from stabdiag.core.run import INSIDE, Run
from stabdiag.core.verification import PLACEBO, UNCHANGED, Trial, Verification
from stabdiag.intervene.intervention import INTERVENTIONS
from stabdiag.intervene.request import Request
from stabdiag.launch.replays import Replay, Variant, Watcher, replay
from stabdiag.launch.target import resolve_target
from stabdiag.store.reader import load

FOLDER = "verification"
EVERY = 10
"""A replay is recorded at a fixed cadence: what is found must not depend on how busy the machine is."""

PAST = 100
"""Steps past the onset that a fix has to show what it does, at least."""

PLACEBO_FACTOR = "0.1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be replayed, for `horizon` steps. `fault` are the signatures of the incidents; `untried` the
    fixes that need a change of code."""

    variants: tuple[Variant, ...]
    onset: int
    horizon: int
    steps: int
    fault: frozenset[str]
    untried: tuple[str, ...]


def plan(run: Run, diagnosis: Diagnosis, horizon: int | None = None) -> Plan:
    """StabdiagError where there is nothing to replay, or no way to."""
    incidents = [i for i in diagnosis.incidents if i.severity > Severity.info]
    if not incidents:
        raise StabdiagError("nothing to verify: no finding of this run is above info")
    _check_replayable(run)
    found = [diagnosis.findings[n] for incident in incidents for n in incident.findings]
    fault = frozenset(f.signature for f in found if f.severity > Severity.info)
    onset = min(incident.onset_step for incident in incidents)
    worst = max(f.peak_step for f in found if f.severity > Severity.info)
    enough = max(onset + max(PAST, onset // 2), worst + PAST // 2)
    steps = horizon or min(enough, run.steps)
    stop = (f"early-stopping={steps}",) if steps < run.steps or horizon else ()
    tried, untried = _fixes(incidents)
    placebo = (f"lower-learning-rate={PLACEBO_FACTOR}",)
    variants = (
        Variant(UNCHANGED, stop),
        *(Variant(v.id, (*v.apply, *stop), v.runtime) for v in tried),
        Variant(PLACEBO, (*placebo, *stop)),
    )
    return Plan(variants, onset, steps, run.steps, fault, untried)


def _check_replayable(run: Run) -> None:
    info = run.info
    if not info.command:
        raise StabdiagError(f"{run.path} does not say which command it is of", "it cannot be replayed")
    if info.command == INSIDE:
        raise StabdiagError(
            "this run was recorded inside a program, by stabdiag.watch: there is no command to replay",
            "as a script under `stabdiag run` it can be",
        )
    if "-" in info.command[:2] or (
        len(info.command) == 1 and Path(info.command[0]).name.startswith("python")
    ):
        raise StabdiagError(
            "this run's program came through standard input, which is gone: it cannot be replayed",
            "save it as a script",
        )
    if info.cwd and not Path(info.cwd).is_dir():
        raise StabdiagError(f"{info.cwd}, where this run was started, is gone: it cannot be replayed")
    here = Path.cwd()
    try:
        os.chdir(info.cwd or here)
        resolve_target(info.command)
    finally:
        os.chdir(here)


def _fixes(incidents: list[Incident]) -> tuple[list[Variant], tuple[str, ...]]:
    tried: dict[str, Variant] = {}
    untried: dict[str, None] = {}
    for incident in incidents:
        for fix in incident.fixes:
            if fix.id in tried:
                continue
            apply = _applied(fix.id, fix.runtime, incident.onset_step)
            if apply is None:
                untried[fix.id] = None
            else:
                tried[fix.id] = Variant(fix.id, apply, fix.runtime)
    return list(tried.values()), tuple(untried)


def _applied(id: str, runtime: object, onset: int) -> tuple[str, ...] | None:
    """How the fix is asked for on the command line, None where it has no such form with these numbers."""
    if not runtime or not isinstance(runtime, dict) or id not in INTERVENTIONS:
        return None
    asked = INTERVENTIONS[id].advised(runtime, onset)
    try:
        return tuple(str(Request.parse(text)) for text in asked)
    except StabdiagError:
        return None


def default_jobs(run: Run) -> int:
    """As many replays as the machine has cores for the threads of one; on an accelerator one."""
    threads = run.fact("process", "threads", 1)
    if not run.info.device.startswith("cpu"):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // max(int(threads), 1))


def verify(
    run: Run, planned: Plan, config: Configuration, jobs: int, healthy: Run | None, watcher: Watcher
) -> Verification:
    """Replays, and judges. The replays stay in the run directory, in `verification`."""
    folder = (run.path or Path()).absolute() / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    every = run.info.configuration.get("every") or EVERY
    replays = replay(run.info, planned.variants, folder, every, jobs, watcher)
    return _judged(run, planned, config, healthy, replays)


def _judged(
    run: Run, planned: Plan, config: Configuration, healthy: Run | None, replays: list[Replay]
) -> Verification:
    seen = {r.variant.id: load(r.path).window(0, planned.horizon - 1) for r in replays if r.path.is_dir()}
    if UNCHANGED not in seen or not seen[UNCHANGED].steps:
        raise StabdiagError("the unchanged replay recorded no step", f"what it said is in {replays[0].log}")
    diagnoses = {id: of_updates(diagnose(one, config), one) for id, one in seen.items()}
    again = bool(planned.fault & alarms(diagnoses[UNCHANGED]).keys())
    fault = seen[UNCHANGED] if again else run.window(0, planned.horizon - 1)
    levels = {id: level_at(one, planned.horizon) for id, one in seen.items()}
    changed = [(seen[id], levels[id]) for id in seen if id != UNCHANGED]
    stick = yardstick(fault, planned.onset, planned.horizon, healthy, changed)
    trials = []
    for one in replays:
        id = one.variant.id
        if id not in seen:
            because = f"it recorded no step; what it said is in {one.log}"
            trials.append(Trial(id, one.variant.apply, one.variant.runtime, "not told", because))
            continue
        recovery, worse = stick.recovery(levels[id]), stick.worse(levels[id])
        mark, because = "", ""
        if id == UNCHANGED or not again:
            recovery = None
        if id != UNCHANGED:
            judged = judge(diagnoses[id], diagnoses[UNCHANGED], planned.fault, recovery, worse)
            mark, because = judged.mark, judged.because
            if not again:
                mark, because = "not told", "the failure did not come again without it either"
        trials.append(_trial(one, seen[id], diagnoses[id], levels[id], recovery, mark, because))
    return Verification(
        horizon=planned.horizon,
        same_until=_same_until(run, seen[UNCHANGED]),
        again=again,
        fault=stick.fault,
        healthy=stick.healthy,
        against=stick.against,
        trials=tuple(trials),
        untried=planned.untried,
    )


def _trial(
    one: Replay,
    run: Run,
    diagnosis: Diagnosis,
    level: float | None,
    recovery: float | None,
    mark: str,
    because: str,
) -> Trial:
    times = run.table("run.step_time").first() if "run.step_time" in run else np.empty(0)
    usual = float(np.nanmedian(times)) if np.isfinite(times).any() else None
    return Trial(
        id=one.variant.id,
        apply=one.variant.apply,
        runtime=one.variant.runtime,
        mark=mark,
        because=because,
        recovery=recovery,
        level=level,
        verdict=diagnosis.verdict,
        findings=tuple(alarms(diagnosis)),
        steps=run.steps,
        step_time=usual,
        exit_status=run.info.exit_status,
        signal=run.info.signal,
        acted=dict(_acted(one.path)),
        path=str(one.path),
    )


def _acted(path: Path) -> Iterator[tuple[str, int]]:
    """What the interventions counted, but for settings that they kept."""
    for event in load(path).events_of("intervention"):
        counts = event.data.get("counts")
        if event.data.get("action") == "ended" and event.rank == 0 and isinstance(counts, dict):
            yield from ((action, int(count)) for action, count in counts.items() if action != "set")


def _same_until(run: Run, again: Run) -> int:
    """The first step whose loss is not the very same in both."""
    if "run.loss" not in run or "run.loss" not in again:
        return 0
    first, second = run.table("run.loss"), again.table("run.loss")
    steps, a, b = np.intersect1d(first.steps, second.steps, return_indices=True)
    x, y = first.first()[a], second.first()[b]
    differ = np.flatnonzero(~((x == y) | (np.isnan(x) & np.isnan(y))))
    return int(steps[differ[0]]) if len(differ) else int(steps[-1]) + 1 if len(steps) else 0
