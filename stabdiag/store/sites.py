"""sites.jsonl: what is known of the measured places, one line each, shared by all ranks of a run."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stabdiag.core.site import Site
from stabdiag.store.jsonl import JsonLines, append_lines

NAME = "sites.jsonl"
RankedSite = tuple[int, Site]
SitesByName = Mapping[tuple[str, str], Site]


def append_sites(run_dir: Path, rank: int, sites: Iterable[Site]) -> None:
    """One write. Raises OSError."""
    append_lines(run_dir / NAME, [{**site.to_json(), "rank": rank} for site in sites])


def read_sites(run_dir: Path) -> JsonLines[RankedSite]:
    """Nothing is read before its first `refresh`."""
    return JsonLines(run_dir / NAME, _site)


def _site(record: dict[str, Any]) -> RankedSite:
    site = Site.from_json(record)
    if not (isinstance(site.kind, str) and isinstance(site.name, str)):
        raise TypeError("a site has the name of a module or parameter")
    return int(record.get("rank", 0)), site


def by_rank(records: Iterable[RankedSite]) -> Callable[[int], SitesByName]:
    """Rank -> ((kind, name) -> site, as that rank last described it, or else another one)."""
    own: dict[int, dict[tuple[str, str], Site]] = {}
    others: dict[tuple[str, str], Site] = {}
    for rank, site in records:
        others[site.kind, site.name] = own.setdefault(rank, {})[site.kind, site.name] = site
    return lambda rank: ChainMap(own.get(rank, {}), others)
