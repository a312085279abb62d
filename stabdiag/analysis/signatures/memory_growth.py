"""Memory that rises step by step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import History, history
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

BLOCKS = 8
SERIES = ("run.memory", "run.resident")
"""Of an accelerator, and of the process."""
USUAL = 32
"""Records that tell what was needed before."""


@signature(
    "memory-growth",
    title="Memory rises step by step",
    needs=("run.memory",),
    explains=("training-stall",),
    causes=("memory-leak", "benign-transient"),
)
def memory_growth(
    run: Run, *, share: float = 0.1, least: float = 32.0, settled: float = 0.25, steady: float = 0.6
) -> Iterator[Finding]:
    """What it means: something is kept from each step: a loss with its graph, outputs in a list, a cache
    that is never emptied. The run ends when memory does.

    How it is detected: after the first `settled` of the run, in which allocators and caches fill, the
    lowest memory of each of eight parts of it is above that of the part before, and the growth over them is
    more than `least` MiB and more than `share` of what there was; over the second half of them it is at
    least `steady` of that over the first, as a leak goes on and a cache fills up. At least 32 records. The
    lowest of a part leaves out what an evaluation or a checkpoint needs for a moment.

    Calibrated on leaks of 0.05 to 1 MiB a step in MLPs; the largest growth in healthy runs was
    2.7 MiB: 0 alarms in 32,300 steps of 74 healthy runs. Eight parts in order are one chance in 40,320 for
    memory that only scatters.

    Look-alikes: sequences that grow by a curriculum; a data set that is loaded as it is read; metrics that
    are kept as plain numbers grow by bytes. A caching allocator rises in leaps and stays.

    Fixes: `loss.item()` or `.detach()` for what is kept; empty lists; no `retain_graph`.

    Reference: PyTorch, Frequently asked questions: my model reports out of memory.

    Facts: per_step (MiB), grown, start, end.
    """
    usable = 0
    for series in SERIES:
        memory = history(run, series).finite()
        kept = memory.within(int(settled * run.steps), run.steps)
        usable = max(usable, len(kept))
        found = _grown(memory, kept, (share, least, steady), series) if len(kept) >= 4 * BLOCKS else None
        if found is not None:
            yield found
            return
    if usable < 4 * BLOCKS:
        raise NotEvaluable(f"the memory of only {usable} later steps was recorded, {4 * BLOCKS} are needed")


def _grown(
    whole: History, memory: History, thresholds: tuple[float, float, float], series: str
) -> Finding | None:
    share, least, steady = thresholds
    parts = [float(part.min()) for part in np.array_split(memory.values, BLOCKS)]
    steps = int(memory.steps[-1] - memory.steps[0])
    grown = parts[-1] - parts[0]
    half = BLOCKS // 2
    goes_on = parts[-1] - parts[half] >= steady * (parts[half - 1] - parts[0])
    rises = bool((np.diff(parts) > 0.005 * grown).all())
    if not (rises and goes_on) or grown < least or grown < share * parts[0]:
        return None
    rate = grown / max(steps * (1 - 1 / BLOCKS), 1)
    onset = _onset(whole, rate, int(memory.steps[len(memory) // BLOCKS]))
    return Finding(
        severity=Severity.warning,
        confidence=0.9,
        sites=("run",),
        onset_step=onset,
        peak_step=int(memory.steps[-1]),
        last_step=int(memory.steps[-1]),
        message=f"Memory ({series}) rises steadily, by {figure(rate)} MiB a step: from "
        f"{figure(parts[0])} to {figure(parts[-1])} MiB in {steps} steps.",
        value=rate,
        threshold=least / max(steps, 1),
        evidence=(Evidence(series, ("run",)),),
        facts={"per_step": rate, "grown": grown, "start": parts[0], "end": parts[-1]},
    )


def _onset(memory: History, rate: float, latest: int) -> int:
    """The step after the last that needed no more than those before a line of `rate` MiB a step, laid through
    the end, leaves the least that the run began with; by `latest`."""
    begin = memory.within(min(5, latest), max(latest // 5, 10)).values
    start = float(begin.min()) if len(begin) else float(memory.values[0])
    line = int(np.clip(memory.steps[-1] - (float(memory.values[-1]) - start) / rate, 0, latest))
    before = memory.within(0, line).values[-USUAL:]
    high = np.flatnonzero(memory.values <= before.max(initial=-np.inf))
    return line if not len(high) else int(np.clip(memory.steps[high[-1]] + 1, line, max(line, latest)))


def _run(memory: np.ndarray) -> Run:
    return run_of({"run.loss": np.ones(len(memory)), "run.memory": memory})


@memory_growth.fires_on
def _keeps_the_graph_of_each_loss(rng: np.random.Generator) -> Run:
    return _run(500 + 0.5 * np.arange(400) + 2 * rng.random(400))


@memory_growth.quiet_on
def _caches_fill_and_stay(rng: np.random.Generator) -> Run:
    return _run(900 - 400 * np.exp(-np.arange(400) / 20) + 2 * rng.random(400))


@memory_growth.quiet_on
def _lengths_vary(rng: np.random.Generator) -> Run:
    return _run(500 + 200 * rng.random(400))
