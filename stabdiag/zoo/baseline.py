"""What a baseline is: the alarms that another tool's rules would raise on a recorded run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.registry import Registry
from stabdiag.core.run import MissingSeries, Run
from stabdiag.core.site import Site

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Alarm:
    """At `step`, by the rule `rule`, at `site` (empty: of the run). `means` are the signatures whose fault
    the rule claims to see."""

    step: int
    rule: str
    means: tuple[str, ...]
    site: str = ""


Watchman = Callable[[Run], Iterator[Alarm]]


@dataclass(frozen=True)
class Baseline:
    """`alarms` raises each rule's alarm once an episode."""

    id: str
    title: str
    alarms: Watchman

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.alarms) or ""


BASELINES: Registry[Baseline] = Registry("baseline", "stabdiag.zoo.baselines")


def baseline(id: str, *, title: str) -> Callable[[Watchman], Watchman]:
    def declare(alarms: Watchman) -> Watchman:
        BASELINES.add(Baseline(id, title, alarms))
        return alarms

    return declare


@dataclass(frozen=True)
class Recorded:
    """A series of some sites, [steps, sites]; without rows where the run does not hold it."""

    steps: NDArray[np.int64]
    sites: tuple[Site, ...]
    values: Doubles

    def column(self, name: str) -> Doubles | None:
        names = [site.name for site in self.sites]
        return self.values[:, names.index(name)] if name in names else None


def recorded(run: Run, series: str) -> Recorded:
    try:
        table = run.table(series)
    except MissingSeries:
        return Recorded(np.empty(0, dtype=np.int64), (), np.empty((0, 0)))
    return Recorded(table.steps, table.sites, table.values.astype(np.float64))


QUIET = 20
"""Recorded steps without the condition, after which it counts as a new episode."""


def episodes(steps: NDArray[np.int64], raised: Bools) -> list[int]:
    """The steps at which a condition begins to hold, after a rest."""
    begins: list[int] = []
    last = -QUIET - 1
    for index in np.flatnonzero(raised):
        if index - last > QUIET:
            begins.append(int(steps[index]))
        last = int(index)
    return begins


def by_site(table: Recorded, raised: Bools, rule: str, means: Sequence[str]) -> Iterator[Alarm]:
    """One alarm an episode of the condition `raised` [steps, sites] anywhere, at the first site that has
    it."""
    if not raised.size:
        return
    for step in episodes(table.steps, np.asarray(raised.any(axis=1))):
        row = int(np.searchsorted(table.steps, step))
        yield Alarm(step, rule, tuple(means), table.sites[int(np.argmax(raised[row]))].name)


def elements(sites: Sequence[Site]) -> Doubles:
    """Elements of each site's tensor, 1 where its shape is not known."""
    return np.array([float(site.size) for site in sites])
