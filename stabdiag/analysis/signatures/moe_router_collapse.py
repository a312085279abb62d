"""The router sends almost everything to few experts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.robust import Doubles
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

EXPERT = re.compile(r"^(.*)\[e(\d+)\]$")
BEGIN = 20
RECORDS = 3
"""Records over which loads are averaged: one batch holds few tokens for each of many experts."""


@dataclass(frozen=True)
class _Router:
    """`spread` [steps]: entropy of the mean load over its largest possible; `idle`: share of experts with
    less than a tenth of an equal load; `load` [steps, experts], the mean over the last records."""

    name: str
    steps: np.ndarray
    experts: tuple[str, ...]
    load: Doubles
    spread: Doubles
    idle: Doubles


@signature(
    "moe-router-collapse",
    title="The router sends almost everything to few experts",
    needs=("router.load",),
    explains=("loss-plateau", "unreachable-parameters", "update-ratio-low", "rank-straggler"),
    causes=("missing-balance-loss", "learning-rate-too-high", "bad-init-scale"),
)
def moe_router_collapse(
    run: Run, *, spread: float = 0.5, idle: float = 0.5, some: float = 0.25, persists: float = 50.0
) -> Iterator[Finding]:
    """What it means: experts that get no tokens get no gradient, and never will: most of the model is dead
    weight, and the device of the favourite one is the bottleneck. The loss does not show it.

    How it is detected: loads are averaged over three records. In a layer their entropy is below `spread` of
    the largest possible, or more than `idle` of the experts get less than a tenth of an equal share, from
    some step on to the end, over at least `persists` steps: a warning, and critical below half of `spread`.
    More than `some` idle experts are info.

    Look-alikes: batches of fewer tokens than eight an expert; batches of one domain. A balance loss of 0.01
    leaves an entropy of 0.69 to 0.86 and one to three of eight experts idle.

    Fixes: a balance loss of 0.01, a z-loss of the router of 1e-3, a bias for each expert that follows its
    load, a smaller learning rate of the router, noise on its logits.

    Calibrated on: mixtures of 8 and 16 experts with a balance loss or without (entropy never below 0.75),
    with a bias of one expert of 2 and 6 (0.19 and 0.00), at a learning rate of 0.1 (0.01). No finding above
    info in the 5 of 61 healthy runs that have these series, 1,500 steps: fewer than 2 in 1,000, at 95 %.

    Reference: Fedus et al. 2021 (arXiv 2101.03961); Zoph et al. 2022 (arXiv 2202.08906).

    Facts: load_entropy (over its largest, of the worst router), idle (share of experts), max_load, experts,
    routers (affected), of.
    """
    routers = _routers(run)
    if not routers:
        raise NotEvaluable("no router was measured")
    found = []
    for router in routers:
        collapsed = (router.spread < spread) | (router.idle > idle)
        since = _to_the_end(collapsed if collapsed[-1] else router.idle > some)
        began = (
            0 if since == 0 else router.steps[since or 0]
        )  # what it is at its first record it has been before
        if since is not None and router.steps[-1] - began >= persists:
            found.append((bool(collapsed[-1]), router, since))
    found = [entry for entry in found if entry[0]] or found
    if not found:
        return
    ranked = sorted(found, key=lambda entry: (entry[1].steps[entry[2]], entry[1].spread[-1]))
    bad, first, since = ranked[0]
    worst = min((router for _, router, _ in found), key=lambda router: router.spread[-1])
    favourite = first.experts[int(np.argmax(first.load[-1]))]
    sites = tuple(dict.fromkeys((first.name, favourite, *(router.name for _, router, _ in ranked[1:4]))))
    value = float(worst.spread[-1])
    severity = Severity.critical if value < spread / 2 else Severity.warning
    last = first.steps[-1]
    yield Finding(
        severity=severity if bad else Severity.info,
        confidence=0.9 if bad else 0.5,
        sites=sites,
        onset_step=int(first.steps[since]),
        peak_step=int(first.steps[since + int(np.argmin(first.spread[since:]))]),
        last_step=int(last),
        message=f"{figure(100 * worst.load[-1].max())} % of the choices of {worst.name} fall on one of "
        f"{len(worst.experts)} experts, and {worst.idle[-1]:.0%} of them are idle, in {len(found)} of "
        f"{len(routers)} routers, since step {first.steps[since]}.",
        value=value,
        threshold=spread,
        evidence=(Evidence("router.load", first.experts[:16], threshold=1 / len(first.experts)),),
        facts={
            "load_entropy": value,
            "idle": float(worst.idle[-1]),
            "max_load": float(worst.load[-1].max()),
            "experts": float(len(worst.experts)),
            "routers": float(len(found)),
            "of": float(len(routers)),
        },
    )


def _routers(run: Run) -> list[_Router]:
    table = run.table("router.load")
    members: dict[str, list[int]] = {}
    for i, name in enumerate(table.names):
        if match := EXPERT.match(name):
            members.setdefault(match.group(1), []).append(i)
    sound = np.ones(len(table.steps), bool)
    if "run.nonfinite" in run:  # of what is not a number a router chooses the first expert
        loss = run.table("run.nonfinite")
        sound = ~np.isin(table.steps, loss.steps[loss.first() > 0])
    routers = []
    for name, columns in members.items():
        rows = np.isfinite(table.values[:, columns]).all(axis=1) & sound
        loads = table.values[rows][:, columns].astype(np.float64)
        steps = table.steps[rows]
        # How a router begins says little of how it goes on, and sparse records must not be averaged with it.
        later = steps >= BEGIN if (steps >= BEGIN).any() else np.ones(len(steps), bool)
        loads, steps = loads[later], steps[later]
        if not len(loads) or len(columns) < 2:
            continue
        sums = np.cumsum(np.vstack([np.zeros(len(columns)), loads]), axis=0)
        ends = np.arange(1, len(sums))
        begins = np.maximum(ends - RECORDS, 0)
        load = (sums[ends] - sums[begins]) / (ends - begins)[:, None]
        share = np.clip(load / np.maximum(load.sum(axis=1, keepdims=True), 1e-12), 1e-12, 1)
        spread = -(share * np.log(share)).sum(axis=1) / np.log(len(columns))
        idle = (share < 0.1 / len(columns)).mean(axis=1)
        experts = tuple(table.names[i] for i in columns)
        routers.append(_Router(name, steps, experts, load, spread, idle))
    return routers


def _to_the_end(flagged: np.ndarray) -> int | None:
    """The first position from which on all are flagged."""
    if not flagged[-1]:
        return None
    clear = np.flatnonzero(~flagged)
    return int(clear[-1]) + 1 if clear.size else 0


def _run(load: np.ndarray) -> Run:
    experts = load.shape[1]
    sites = [Site("router", f"moe[e{i}]", "Router", order=1) for i in range(experts)]
    first = Site("router", "moe", "Router", order=1)
    series = {"router.load": np.column_stack([np.full(len(load), np.nan), load])}
    return run_of(
        series, sites={"router": [first, *sites]}, steps={"router": np.arange(0, 10 * len(load), 10)}
    )


@moe_router_collapse.fires_on
def _one_expert_takes_all(rng: np.random.Generator) -> Run:
    preference = np.zeros((40, 8))
    preference[:, int(rng.integers(8))] = np.clip(np.arange(40) - 5, 0, 30) / 3
    load = np.exp(preference + 0.3 * rng.standard_normal((40, 8)))
    return _run(load / load.sum(axis=1, keepdims=True))


@moe_router_collapse.quiet_on
def _unequal_but_used(rng: np.random.Generator) -> Run:
    load = np.exp(0.7 * rng.standard_normal(8) + 0.2 * rng.standard_normal((40, 8)))
    return _run(load / load.sum(axis=1, keepdims=True))


@moe_router_collapse.quiet_on
def _few_tokens_a_batch(rng: np.random.Generator) -> Run:
    return _run(rng.multinomial(8, np.full(8, 1 / 8), 40) / 8)
