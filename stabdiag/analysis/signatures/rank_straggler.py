"""One process for which all others wait."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import evenly
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.robust import Doubles, median
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

OWN_WORK = ("rank.data_time", "rank.forward_time")
"""Before the first collective of a step: what a process does by itself. In the backward pass the fast ones
wait, and all seem equally slow."""

AT_ONCE = 8
"""Steps from the onset on of which as large a share is slow."""
LEAST = 40
"""Steps for which a process has to be the slowest."""


@signature(
    "rank-straggler",
    title="All processes wait for one",
    needs=("rank.step_time",),
    explains=("training-stall",),
    causes=("slow-rank",),
)
def rank_straggler(run: Run, *, waste: float = 0.2, often: float = 0.85) -> Iterator[Finding]:
    """What it means: processes that train together wait for the slowest at each step. What it takes longer,
    all others lose.

    How it is detected: a process spends more on its own part of the step (data and forward pass, before the
    first exchange; the whole step where phases are unknown) than the other processes: since some step it is
    the slowest in `often` of the steps, by more than `waste` of a step in their median, for 40 steps or more.
    The first 10 steps are left out. A warning; info from half of that on.

    Calibrated by construction: with equal processes each is the slowest in one of N steps, so that `often`
    of 40 is out of reach of chance (4e-6 for two processes, 1e-15 for four, whose waste is zero besides). A
    process that waits 0.1 to 0.3 s from step 73 or 78 on is told from that step on.

    Look-alikes: one slow step is a stall. Uneven sequence lengths make now this process slow, now that.
    On an accelerator that runs behind the host only what the host does is seen.

    Fixes: look at that machine: other programs, temperature, a slow disk or link, its own share of the data;
    buckets of like lengths.

    Reference: Jiang et al. 2024 (MegaScale, arXiv 2402.15627), section 5.

    Facts: rank, excess (s a step), waste (share of a step), slowest (share of steps), each since the onset.
    """
    table = run.table("rank.step_time")
    steps = table.values[10:].astype(np.float64)
    if len(table.sites) < 2 or len(steps) < LEAST:
        raise NotEvaluable(f"fewer than two processes, or fewer than {LEAST + 10} steps")
    own = _own(run)[10:]
    at = np.flatnonzero(np.isfinite(own).all(axis=1))
    at = at[evenly(len(at), 1024)]
    own, steps = own[at], steps[at]
    if len(own) < LEAST:
        raise NotEvaluable(f"the times of all processes are known in only {len(own)} steps")
    found = _slowest(own, steps, waste / 2, often)
    if found is None:
        return
    rank, since = found
    own, steps, at = own[since:], steps[since:], at[since:]
    excess = float(np.median(_behind(own, rank)))
    slowest = float((own.argmax(axis=1) == rank).mean())
    share = excess / max(float(median(steps)), 1e-12)
    if not share > waste / 2:
        return
    name = table.names[rank]
    at = at + 10
    yield Finding(
        severity=Severity.warning if share > waste else Severity.info,
        confidence=0.8,
        sites=(name,),
        onset_step=int(table.steps[at[0]]),
        peak_step=int(table.steps[at[int(np.argmax(own[:, rank]))]]),
        last_step=int(table.steps[at[-1]]),
        message=f"{name} takes {figure(1e3 * excess)} ms longer for its part of a step than the others, "
        f"{share:.0%} of a step for which they wait; it is the slowest in {slowest:.0%} of the steps.",
        value=share,
        threshold=waste,
        evidence=(Evidence(OWN_WORK[1] if OWN_WORK[1] in run else "rank.step_time", table.names),),
        facts={"rank": float(rank), "excess": excess, "waste": share, "slowest": slowest},
    )


def _behind(own: Doubles, rank: int) -> Doubles:
    """By how much a process was slower than the others, [steps]. Of two the median is between them."""
    return np.asarray(own[:, rank] - np.median(np.delete(own, rank, axis=1), axis=1))


def _slowest(own: Doubles, steps: Doubles, waste: float, often: float) -> tuple[int, int] | None:
    """The process that all wait for at the end of the run, and the first position from which on it was the
    slowest, and by `waste` of a step, in `often` of `LEAST` positions or more."""
    typical = median(steps, axis=1)
    for rank in np.unique(own[-LEAST:].argmax(axis=1)).tolist():
        behind = _behind(own, rank)
        late = 0.25 * float(np.median(behind[-LEAST:]))
        slow = (own.argmax(axis=1) == rank) & (behind > np.maximum(waste * typical, late))
        share = np.cumsum(slow[::-1])[::-1] / np.arange(len(slow), 0, -1)
        # Stray slow steps before the onset are not the onset.
        soon, at_once = (np.convolve(slow, np.ones(n))[n - 1 :] / n for n in (LEAST, AT_ONCE))
        since = np.flatnonzero(slow & (share >= often) & (soon >= often) & (at_once >= often))
        if since.size:
            return rank, int(since[0])
    return None


def _own(run: Run) -> Doubles:
    parts = [run.table(series).values.astype(np.float64) for series in OWN_WORK if series in run]
    parts = [part for part in parts if not np.isnan(part).all()]
    return np.asarray(sum(parts)) if parts else run.table("rank.step_time").values.astype(np.float64)


def _run(rng: np.random.Generator, forward: np.ndarray) -> Run:
    ranks = [Site("rank", f"rank-{i}", order=i) for i in range(forward.shape[1])]
    data = 0.002 + 0.001 * rng.random(forward.shape)
    own = forward + data
    return run_of(
        {
            "rank.step_time": np.repeat(own.max(axis=1, keepdims=True) + 0.05, len(ranks), axis=1),
            "rank.data_time": data,
            "rank.forward_time": forward,
        },
        sites={"rank": ranks},
    )


@rank_straggler.fires_on
def _one_is_slow(rng: np.random.Generator) -> Run:
    forward = 0.03 + 0.01 * rng.random((200, 4))
    forward[:, 2] += 0.06
    return _run(rng, forward)


@rank_straggler.fires_on
def _one_becomes_slow(rng: np.random.Generator) -> Run:
    forward = 0.03 + 0.01 * rng.random((200, 2))
    forward[120:, 1] += 0.06
    return _run(rng, forward)


@rank_straggler.quiet_on
def _lengths_vary(rng: np.random.Generator) -> Run:
    return _run(rng, 0.03 + 0.2 * rng.random((200, 4)))


@rank_straggler.quiet_on
def _one_step_is_slow(rng: np.random.Generator) -> Run:
    forward = 0.03 + 0.01 * rng.random((200, 4))
    forward[100, 1] += 5.0
    return _run(rng, forward)
