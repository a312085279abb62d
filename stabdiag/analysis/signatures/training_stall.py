"""A step that takes far longer than its kind, or never comes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.robust import Doubles, trailing_median
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.synthetic import run_of

PHASES = ("data", "forward", "backward", "optimizer")


@signature(
    "training-stall",
    title="A step takes far longer than its kind, or none comes",
    needs=("run.step_time",),
    causes=("slow-rank", "memory-leak", "benign-transient"),
)
def training_stall(
    run: Run, *, times: float = 10.0, seconds: float = 1.0, lost: float = 0.05, hung: float = 60.0
) -> Iterator[Finding]:
    """What it means: training waits for something: data, a disk, another process, a lock. In the end it may
    wait for ever.

    How it is detected: a step takes more than `times` the median of the 50 before it and `seconds` at
    least, without the evaluations before it and without what the recorder took; not in the first 20 steps,
    and not where such steps come at equal distances, as checkpoints do. A warning where there were three or
    more of them, which took more than `lost` of the run's time and one of them 100 times the usual, or where
    one took more than `hung` seconds.
    Critical where the run was ended by a signal or an error after `hung` seconds, and 100 usual steps,
    without a step.

    Calibrated on steps of 10 to 110 ms, on two cores that eight trainings shared: one step of 1.1 s, ten
    times the usual, was told as info, and 0 alarms in 32,300 steps of 74 healthy runs. A wait of 2 s was
    found at its step.

    Look-alikes: compilation, evaluation, checkpoints, and a machine that does other things too. The first
    steps of all, and of new shapes, are long.

    Fixes: look at the phase that grew: data (workers, disk), backward (waiting for another process),
    memory that swaps.

    Reference: Jeon et al. 2019 (Analysis of large-scale multi-tenant GPU clusters, USENIX ATC).

    Facts: seconds (of the longest), usual (s), stalls, lost (share of the run's time), phase (0 data, 1
    forward, 2 backward, 3 optimizer) where known.
    """
    times_taken = history(run, "run.step_time").finite()
    if len(times_taken) < 40:
        raise NotEvaluable(f"the duration of only {len(times_taken)} steps is known, 40 are needed")
    steps, taken = times_taken.steps, _own(run, times_taken.steps, times_taken.values)
    usual = np.concatenate([[np.inf], trailing_median(taken, 50)[:-1]])
    long = (taken > times * usual) & (taken > seconds)
    long[:20] = False
    total = float(times_taken.values.sum())
    yield from _hang(run, steps, taken, hung)
    at = np.flatnonzero(long)
    if not len(at) or _regular(steps[at]):
        return
    worst = int(at[np.argmax(taken[at])])
    excess = float((taken[at] - usual[at]).sum())
    grave = len(at) >= 3 and excess > lost * total and bool((taken[at] > 100 * usual[at]).any())
    facts = {
        "seconds": float(taken[worst]),
        "usual": float(usual[worst]),
        "stalls": float(len(at)),
        "lost": excess / total,
    }
    phase = _phase(run, int(steps[worst]))
    facts |= {} if phase is None else {"phase": float(phase)}
    more = f", the longest of {len(at)} such steps" if len(at) > 1 else ""
    where = "" if phase is None else f", most of it in {_name(phase)}"
    yield Finding(
        severity=Severity.warning if grave or taken[worst] > hung else Severity.info,
        confidence=0.9,
        sites=("run",),
        onset_step=int(steps[at[0]]),
        peak_step=int(steps[worst]),
        last_step=int(steps[at[-1]]),
        message=f"Step {steps[worst]} took {figure(float(taken[worst]))} s where "
        f"{figure(float(usual[worst]))} s is usual{more}{where}.",
        value=float(taken[worst]),
        threshold=max(times * float(usual[worst]), seconds),
        evidence=(Evidence("run.step_time", ("run",), log=True),),
        facts=facts,
    )


def _own(run: Run, steps: NDArray[np.int64], taken: Doubles) -> Doubles:
    """Durations without evaluations before the step and without the recorder's part."""
    own = taken.copy()
    recorder = history(run, "run.overhead").finite()
    kept = np.isin(steps, recorder.steps)
    own[kept] -= recorder.values[np.isin(recorder.steps, steps)]
    if "evaluation.seconds" in run:
        table = run.table("evaluation.seconds")
        longest = np.nan_to_num(table.values).max(axis=1, initial=0.0)
        here = np.isin(steps, table.steps)
        own[here] -= longest[np.isin(table.steps, steps)]
        # What surrounds an evaluation, such as writing its results, is no step either.
        own[here] = np.minimum(own[here], np.median(taken))
    return np.asarray(np.maximum(own, 0.0))


def _regular(steps: NDArray[np.int64]) -> bool:
    """Whether three or more come at equal distances, or multiples of one."""
    gaps = np.diff(steps)
    if len(gaps) < 2:
        return False
    ratio = gaps / gaps.min()
    return bool(gaps.min() > 1 and (np.abs(ratio - np.round(ratio)) * gaps.min() <= 1).all())


def _phase(run: Run, step: int) -> int | None:
    """The part of the step that grew most."""
    grown = []
    for name in PHASES:
        spent = history(run, f"run.{name}_time")
        now, usual = spent.within(step, step).finite().values, spent.usual(step)
        grown.append(float(now[0]) - usual if len(now) and usual is not None else -np.inf)
    return int(np.argmax(grown)) if np.isfinite(grown).any() else None


def _name(phase: int) -> str:
    return "what comes before the forward pass" if phase == 0 else f"the {PHASES[phase]} pass or step"


def _hang(run: Run, steps: NDArray[np.int64], taken: Doubles, hung: float) -> Iterator[Finding]:
    """The run was ended from outside, long after its last step."""
    times = run.kinds["run"].times
    ended, broken = run.info.ended, run.info.signal or (run.info.exit_status or 0) != 0
    if ended is None or not broken or not len(times):
        return
    waited, usual = ended - float(times[-1]), float(np.median(taken))
    if waited > max(hung, 100 * usual):
        last = int(steps[-1])
        yield Finding(
            severity=Severity.critical,
            confidence=0.8,
            sites=("run",),
            onset_step=last,
            peak_step=last,
            last_step=last,
            message=f"No step came in the {figure(waited)} s between step {last} and the end of the run, "
            f"where {figure(usual)} s is usual.",
            value=waited,
            threshold=max(hung, 100 * usual),
            evidence=(Evidence("run.step_time", ("run",), log=True),),
            facts={"seconds": waited, "usual": usual, "stalls": 1.0, "lost": waited / (waited + taken.sum())},
        )


def _run(taken: np.ndarray, info: RunInfo | None = None) -> Run:
    series = {
        "run.step_time": taken,
        "run.data_time": taken - 0.02,
        "run.backward_time": np.full(len(taken), 0.01),
    }
    return run_of(series, info=info)


@training_stall.fires_on
def _waits_for_data(rng: np.random.Generator) -> Run:
    taken = 0.05 + 0.005 * rng.random(300)
    taken[[120, 200, 231]] = 12.0
    return _run(taken)


@training_stall.fires_on
def _hangs_until_it_is_killed(rng: np.random.Generator) -> Run:
    info = RunInfo(started=0.0, ended=1000.0, signal="SIGKILL")
    return _run(0.05 + 0.005 * rng.random(200), info)


@training_stall.quiet_on
def _checkpoints(rng: np.random.Generator) -> Run:
    taken = 0.05 + 0.005 * rng.random(400)
    taken[50::50] = 8.0
    return _run(taken)


@training_stall.quiet_on
def _compiles_first(rng: np.random.Generator) -> Run:
    taken = 0.05 + 0.005 * rng.random(300)
    taken[:3] = [40.0, 20.0, 1.0]
    return _run(taken)
