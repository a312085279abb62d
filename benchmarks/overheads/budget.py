"""Whether a run keeps to its budget: what it spends, looked at in three ways.

The run and a bare one train abreast, each on a core of its own, and wait for each other after every few
steps; then they change cores. Taking turns would give the recorder idle seconds to earn from. A GPU they
would share, so there one trains after the other. Two processes differ by a per cent or so for as long as
they live, whatever they do; the third way looks at one of them only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from overheads.account import account_of
from overheads.training import Size
from overheads.worker import Cost, Worker

Pair = tuple[list[Sequence[Cost]], list[Sequence[Cost]]]
"""The turns of the bare process, and those of the other."""

SETTLED = 200
ABREAST = 5  # steps


@dataclass(frozen=True)
class Spent:
    """Over the steps after the 200th, or the second half of a shorter run.

    turns       ratios of the time of a turn to that of the bare process: CPU time, or the GPU's own
    paired      share of the bare time by which the process exceeds the bare one
    told        share of the bare step time that the run itself says it spent
    neighbours  share by which recorded steps exceed the steps next to them of which nothing was recorded;
                NaN where there were none of these
    fast        share of the steps that were recorded at the fast tier
    above       and of those above it
    """

    turns: list[float]
    paired: float
    told: float = float("nan")
    neighbours: float = float("nan")
    fast: float = 0.0
    above: float = 0.0


def watch_spending(monitor: str, size: Size, steps: int, cores: tuple[int, int]) -> Spent:
    together = _abreast if size.device == "cpu" else _one_after_the_other
    with Worker(monitor, size) as watched:
        with Worker("bare", size) as bare:
            pairs = together(bare, watched, -(-steps // ABREAST), cores)
        watched.end()
        account = account_of(watched.folder)
    first = min(SETTLED, steps // 2) // ABREAST
    without, costs = np.array([[_seconds(turn, size) for turn in each[first:]] for each in pairs])
    turns = (costs.sum(1) / without.sum(1)).tolist()
    paired = float(costs.sum() / without.sum() - 1)
    if account is None:
        return Spent(turns, paired)
    costs = costs.ravel()
    later = slice(first * ABREAST, first * ABREAST + len(costs))
    tier, overhead = account.tier[later], account.overhead[later].sum()
    return Spent(
        turns,
        paired,
        told=float(overhead / (costs.sum() - overhead)),
        neighbours=beside_neighbours(costs, tier > 0),
        fast=fmean(tier == 1),
        above=fmean(tier > 1),
    )


def _abreast(bare: Worker, watched: Worker, turns: int, cores: tuple[int, int]) -> Pair:
    pair: Pair = ([], [])
    for turn in range(turns):
        bare.begin(ABREAST, cores[turn % 2])
        watched.begin(ABREAST, cores[(turn + 1) % 2])
        for worker, costs in zip((bare, watched), pair, strict=True):
            costs.append(worker.finish())
    return pair


def _one_after_the_other(bare: Worker, watched: Worker, turns: int, _cores: tuple[int, int]) -> Pair:
    one, other = ([worker.train(ABREAST) for _ in range(turns)] for worker in (bare, watched))
    return one, other


def _seconds(turn: Sequence[Cost], size: Size) -> list[float]:
    return [cost.cpu if size.device == "cpu" else cost.wall for cost in turn]


def beside_neighbours(costs: NDArray[np.float64], recorded: NDArray[np.bool_]) -> float:
    """`recorded` tells which of the steps were: bool [steps], as `costs`."""
    without = np.flatnonzero(~recorded)
    if len(without) < 2:
        return float("nan")
    place = np.searchsorted(without, np.flatnonzero(recorded))
    before, after = (without[np.clip(place + shift, 0, len(without) - 1)] for shift in (-1, 0))
    extra = costs[recorded] - (costs[before] + costs[after]) / 2
    return float(extra.sum() / (costs.sum() - extra.sum()))
