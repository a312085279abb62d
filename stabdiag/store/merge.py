"""Several processes that trained together, read as one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from stabdiag.core.run import Floats, KindData
from stabdiag.core.site import KINDS, Site
from stabdiag.store.align import Aligned, Steps
from stabdiag.store.groups import Batches, Group, Shards, groups_of, merged_site
from stabdiag.store.kinds import Kinds
from stabdiag.store.replicas import STATISTICS, compared
from stabdiag.store.rules import Stack, rule_of
from stabdiag.store.whole import (
    COUNTED,
    batch_weights,
    cosine_of_shards,
    distinct,
    gradient_norms,
    is_cut,
    ratio_of_shards,
)
from stabdiag.store.world import side_by_side

BLOCK = 1 << 20
"""Numbers, of all ranks together, that are merged at a time."""
SETTLED = 64
"""Rows behind the last of the slowest rank that are final: its files are looked at one after another."""
LATE = 1024
"""Rows behind the last of the fastest rank that are final: a rank that died is not waited for."""


@dataclass(frozen=True)
class Settled:
    """Rows of a kind that no further row of any rank can change."""

    ranks: tuple[int, ...]
    data: KindData


class MergedKinds(Mapping[str, KindData]):
    """The kinds of a world, each merged when it is first asked for; and kind `rank`, of each process.

    `settled` holds what an earlier reading of the same files had merged, and takes what this one merges.
    """

    def __init__(self, ranks: Mapping[int, Kinds], settled: dict[str, Settled]) -> None:
        self._ranks = ranks
        self._settled = settled
        self._aligned: dict[str, Aligned] = {}
        self._merged: dict[str, KindData] = {}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        names = dict.fromkeys(kind for kinds in self._ranks.values() for kind in kinds)
        found = [*names, "rank"] if "run" in names else [*names]
        return tuple(sorted(found, key=lambda kind: KINDS.index(kind) if kind in KINDS else len(KINDS)))

    def __getitem__(self, kind: str) -> KindData:
        if kind not in self._names:
            raise KeyError(kind)
        if kind not in self._merged:
            with np.errstate(all="ignore"):  # non-finite numbers are the point
                self._merged[kind] = self._apart() if kind == "rank" else self._merge(kind)
        return self._merged[kind]

    def __contains__(self, kind: object) -> bool:
        return kind in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def notes(self) -> Iterator[str]:
        """What of the files could not be read. Reads all kinds."""
        for kinds in self._ranks.values():
            yield from kinds.notes

    def aligned(self, kind: str) -> Aligned:
        if kind not in self._aligned:
            self._aligned[kind] = Aligned(
                {n: kinds[kind] for n, kinds in self._ranks.items() if kind in kinds}
            )
        return self._aligned[kind]

    def _apart(self) -> KindData:
        return side_by_side({number: kinds["run"] for number, kinds in self._ranks.items() if "run" in kinds})

    def _merge(self, kind: str) -> KindData:
        rows = self.aligned(kind)
        sites = tuple(merged_site(rows.sites_of(name)) for name in rows.names)
        merge = _Merge(self, kind, rows)
        before = self._settled.get(kind)
        if before and (before.ranks != rows.ranks or not _continues(before.data, sites, merge.statistics)):
            before = None
        last = int(before.data.steps[-1]) if before and len(before.data.steps) else -1
        steps, times = rows.steps_after(last)
        values = {name: np.empty((len(steps), len(sites)), np.float32) for name in merge.statistics}
        size = max(1, BLOCK // max(1, len(rows.ranks) * len(sites)))
        for start in range(0, len(steps), size):
            part = slice(start, start + size)
            merge.block(steps[part], {name: array[part] for name, array in values.items()})
        data = KindData(steps, times, sites, values)
        if before and last >= 0:
            data = _joined(before.data, data)
        self._settled[kind] = Settled(rows.ranks, data.window(-1, rows.final(SETTLED, LATE)))
        return data


def _continues(data: KindData, sites: tuple[Site, ...], statistics: Sequence[str]) -> bool:
    return data.sites == sites and tuple(data.values) == tuple(statistics)


def _joined(early: KindData, late: KindData) -> KindData:
    return KindData(
        np.concatenate([early.steps, late.steps]),
        np.concatenate([early.times, late.times]),
        late.sites,
        {name: np.concatenate([early.values[name], array]) for name, array in late.values.items()},
    )


class _Merge:
    """Merges rows of one kind."""

    def __init__(self, kinds: MergedKinds, kind: str, rows: Aligned) -> None:
        self._kinds = kinds
        self._kind = kind
        self._rows = rows
        self._groups = [] if kind == "replica" else groups_of(kind, rows)
        self.statistics: tuple[str, ...] = STATISTICS if kind == "replica" else rows.statistics

    def block(self, steps: Steps, out: Mapping[str, Floats]) -> None:
        if self._kind == "replica":
            for statistic, values in compared(self._rows, steps).items():
                out[statistic][:] = values
        for group in self._groups:
            self._merge(group, steps, out)
        if self._kind == "run" and "grad" in self._kinds and is_cut(self._kinds.aligned("grad")):
            names = ("grad_norm", "clipped_grad_norm")
            own, clipped = (self._rows.stack(n, steps, columns=np.zeros(1, np.intp))[..., 0] for n in names)
            for name, values in zip(names, gradient_norms(self._kinds, steps, own, clipped), strict=True):
                if name in out:
                    out[name][:, 0] = values

    def _merge(self, group: Group, steps: Steps, out: Mapping[str, Floats]) -> None:
        counts = distinct(self._kinds, steps, group.ranks) if self._kind in ("run", "batch") else None

        @lru_cache(maxsize=1)
        def flags(ranks: tuple[int, ...]) -> Stack:
            return self._rows.stack("nonfinite", steps, ranks, group.columns)

        def read(statistic: str, ranks: Sequence[int]) -> Stack:
            if statistic == "nonfinite":
                return flags(tuple(ranks))
            values = self._rows.stack(statistic, steps, ranks, group.columns)
            if counts is not None and f"{self._kind}.{statistic}" in COUNTED:
                values[~counts[:, :, 0]] = np.nan
            return values

        weigh = isinstance(group, Batches) and self._kind != "run"
        weights = batch_weights(self._kinds, steps, group.ranks) if weigh else np.ones((1, 1, 1))
        for statistic in self.statistics:
            series = f"{self._kind}.{statistic}"
            if isinstance(group, Shards) and series in ("update.ratio", "optimizer.cosine"):
                merged = self._derived(series, group, steps)
            else:
                merged = group.merge(statistic, read, rule_of(series), weights)
            out[statistic][:, group.columns] = merged

    def _derived(self, series: str, group: Shards, steps: Steps) -> Stack:
        def parts(kind: str, statistic: str) -> Stack:
            names = [self._rows.names[column] for column in group.columns]
            if kind not in self._kinds:
                return np.full((len(group.parts), len(steps), len(names)), np.nan)
            rows = self._kinds.aligned(kind)
            columns = rows.columns(names)
            return group.by_part(statistic, lambda s, ranks: rows.stack(s, steps, ranks, columns))

        if series == "update.ratio":
            change, ratio = parts("update", "norm"), parts("update", "ratio")
            return ratio_of_shards(group, change, ratio, parts("weight", "norm"))
        cosine, momentum = parts("optimizer", "cosine"), parts("optimizer", "momentum")
        return cosine_of_shards(group, cosine, momentum, parts("grad", "clipped_norm"))
