"""Monitors beside a bare run, in turns.

Each monitor trains in a process of its own, as what they set is global to a process: hooks on all
modules, patches of torch, modes of autograd. The processes wait for each other, so that one trains at a
time, and a turn of the bare one comes before and after each turn of a monitor: a machine that is slow for
some minutes is slow for both. Two bare processes still differ by a per cent for as long as they live, by
where their memory happens to lie; so all are started anew from time to time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

from overheads.account import Account, account_of
from overheads.training import Size
from overheads.worker import Cost, Failed, Worker

WARM = 6  # steps: the first five are recorded whole in any case
QUIET = 1.05  # wall time of bare steps over their CPU time, beyond which others had the core


class Turn(NamedTuple):
    """Costs of the steps of a turn, the first of which is number `step`; of the bare steps around it."""

    step: int
    costs: Sequence[Cost]
    around: Sequence[Cost]


@dataclass
class Turns:
    """Of one monitor in one process, and its own account of it where it is stabdiag."""

    turns: list[Turn] = field(default_factory=list)
    account: Account | None = None

    def of_tier(self, tier: int | None) -> Iterator[Turn]:
        """Without the steps that stabdiag recorded at other tiers; all, where `tier` is None."""
        for turn in self.turns:
            if tier is None or self.account is None:
                yield turn
                continue
            numbered = zip(self.account.tier[turn.step :], turn.costs, strict=False)
            costs = [cost for of_step, cost in numbered if of_step == tier]
            if costs:
                yield turn._replace(costs=costs)


def take_turns(
    monitors: Iterable[str], name: str, size: Size, failures: dict[str, str], core: int | None = None
) -> Iterator[tuple[str, Turns]]:
    """The turns of each monitor, once for each time that processes are started anew. Why a monitor cannot
    run is put into `failures`."""
    wanted = list(monitors)
    for first in range(0, size.rounds, size.fresh):
        rounds = min(size.fresh, size.rounds - first)
        print(f"{name}: rounds {first} to {first + rounds - 1}", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            bare = stack.enter_context(Worker("bare", size, core))
            started = (_started(stack, m, size, failures, core) for m in wanted if m not in failures)
            workers = [(worker, Turns()) for worker in started if worker is not None]
            bare.train(WARM)
            before = bare.train(size.steps)
            for number in range(rounds):
                for worker, turns in workers:
                    costs = worker.train(size.steps)
                    after = bare.train(size.steps)
                    turns.turns.append(Turn(WARM + number * size.steps, costs, [*before, *after]))
                    before = after
            for worker, turns in workers:
                worker.end()
                turns.account = account_of(worker.folder)
                yield worker.monitor, turns


def _started(
    stack: ExitStack, monitor: str, size: Size, failures: dict[str, str], core: int | None
) -> Worker | None:
    try:
        worker = stack.enter_context(Worker(monitor, size, core))
        worker.train(WARM)
    except Failed as failure:
        failures[monitor] = str(failure)
        return None
    return worker


def cpu_ratio(turn: Turn) -> float:
    return fmean(c.cpu for c in turn.costs) / fmean(c.cpu for c in turn.around)


def wall_ratio(turn: Turn, device: str) -> float | None:
    """None where the machine was not quiet; a GPU always is."""
    if device == "cpu" and sum(c.wall for c in turn.around) > QUIET * sum(c.cpu for c in turn.around):
        return None
    return fmean(c.wall for c in turn.costs) / fmean(c.wall for c in turn.around)


def extra_microseconds(turn: Turn) -> float:
    """CPU time of a step less that of a bare one."""
    return 1e6 * (fmean(c.cpu for c in turn.costs) - fmean(c.cpu for c in turn.around))


def bare_seconds(taken: Iterable[Turns]) -> float:
    """CPU time of a bare step, the median."""
    return median(cost.cpu for turns in taken for turn in turns.turns for cost in turn.around)
