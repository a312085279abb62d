"""Which sites of a kind merge alike: those of which processes hold copies, shards, or batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.site import Site
from stabdiag.store.align import Aligned
from stabdiag.store.rules import Rule, Stack, first, largest, total

PARAMETERS = ("initial", "weight", "grad", "update", "optimizer", "replica", "curvature")
"""Kinds of which each process has the whole, where no placement says otherwise. Of all others each
has seen its own part of the batch."""

Read = Callable[[str, Sequence[int]], Stack]
"""Statistic, ranks -> [ranks, steps, columns] of a group at some steps."""


@dataclass(frozen=True)
class Group:
    """Columns of a kind, and the ranks that recorded them."""

    columns: NDArray[np.intp]
    ranks: tuple[int, ...]

    def merge(self, statistic: str, read: Read, rule: Rule, weights: Stack) -> Stack:
        """[steps, columns]; `weights` are those of the ranks' batches, [ranks, steps, 1]."""
        raise NotImplementedError


class Copies(Group):
    """Each rank has the whole: the lowest one that recorded it speaks for all."""

    def merge(self, statistic: str, read: Read, rule: Rule, weights: Stack) -> Stack:
        if statistic == "nonfinite":
            return largest(read(statistic, self.ranks), weights)
        found: Stack = read(statistic, self.ranks[:1])[0]
        for rank in self.ranks[1:]:
            missing = np.isnan(found)
            if not missing.any():
                break
            found = np.where(missing, read(statistic, (rank,))[0], found)
        return found


class Batches(Group):
    """Each rank has its own part of the batch; those that recorded the step count."""

    def merge(self, statistic: str, read: Read, rule: Rule, weights: Stack) -> Stack:
        values = read(statistic, self.ranks)
        absent = np.isnan(values)
        merged = rule(values, weights)
        lost = absent.all(axis=0)
        if absent.any() and statistic != "nonfinite" and rule is not first:
            lost |= (absent & (read("nonfinite", self.ranks) > 0)).any(axis=0)
        merged[lost] = np.nan
        return merged


@dataclass(frozen=True)
class Shards(Group):
    """Each rank has a part, some perhaps the same one: `parts` are positions in `ranks` that do, and
    `sizes` [parts, 1, columns] their numbers of elements; `whole` tells for each column whether these make
    up the whole. Where they do not, or a step lacks one, there is no value; that a part held a
    non-finite one is told all the same."""

    parts: tuple[tuple[int, ...], ...]
    sizes: Stack
    whole: NDArray[np.bool_]

    def by_part(self, statistic: str, read: Read) -> Stack:
        """[parts, steps, columns], of the lowest rank that recorded the part."""
        values = read(statistic, self.ranks)
        return np.stack([first(values[list(part)], values) for part in self.parts])

    def merge(self, statistic: str, read: Read, rule: Rule, weights: Stack) -> Stack:
        parts = self.by_part(statistic, read)
        merged = rule(parts, self.sizes)
        missing = np.isnan(parts).any(axis=0) | ~self.whole
        if statistic == "nonfinite":
            missing &= ~(total(parts, self.sizes) > 0)
        merged[missing] = np.nan
        return merged


def groups_of(kind: str, rows: Aligned) -> list[Group]:
    """Of all columns, each in one group."""
    found: dict[tuple[object, ...], list[int]] = {}
    described = [rows.sites_of(name) for name in rows.names]
    for column, sites in enumerate(described):
        found.setdefault(_alike(kind, sites), []).append(column)
    return [_group(key, np.array(columns, np.intp), described) for key, columns in found.items()]


def _alike(kind: str, sites: Mapping[int, Site]) -> tuple[object, ...]:
    if any(site.placement == "sharded" for site in sites.values()):
        return "shards", *((rank, site.part) for rank, site in sites.items())
    copies = kind in PARAMETERS or any(site.placement for site in sites.values())
    return "copies" if copies else "batches", *sites


def _group(key: tuple[object, ...], columns: NDArray[np.intp], described: list[dict[int, Site]]) -> Group:
    ranks = tuple(described[columns[0]])
    if key[0] != "shards":
        return (Copies if key[0] == "copies" else Batches)(columns, ranks)
    parts: dict[int, list[int]] = {}
    for position, site in enumerate(described[columns[0]].values()):
        parts.setdefault(site.part, []).append(position)
    lowest = [ranks[positions[0]] for positions in parts.values()]
    sizes = np.array([[described[c][rank].local_size for c in columns] for rank in lowest], np.float64)
    wholes = np.array([described[c][ranks[0]].size for c in columns])
    return Shards(
        columns, ranks, tuple(map(tuple, parts.values())), sizes[:, None], sizes.sum(axis=0) == wholes
    )


def merged_site(sites: Mapping[int, Site]) -> Site:
    """As the lowest rank described it, and as a whole."""
    site = next(iter(sites.values()))
    return replace(site, part=0, local_size=site.size if site.placement else 0)
