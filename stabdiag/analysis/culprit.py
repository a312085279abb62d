"""Whom to blame: the module, parameter, head, rank and batch that an incident is pinned on."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from stabdiag.analysis.batches import other_uses
from stabdiag.analysis.catalogue import CAUSES
from stabdiag.analysis.history import history
from stabdiag.core.diagnosis import Batch, Culprit, FirstMover
from stabdiag.core.finding import CauseRanked, Finding
from stabdiag.core.run import Run
from stabdiag.core.site import Site

PART = re.compile(r"(.*)\[([he])(\d+)\]")
RANK = re.compile(r"rank-(\d+)")
NO_PLACE = ("run", "rank", "batch", "evaluation")
"""Kinds whose sites are no part of a model."""
LIBRARY = re.compile(r"\btorch[/\\]nn[/\\]")


def culprit(run: Run, root: Finding, cause: CauseRanked | None, mover: FirstMover | None) -> Culprit | None:
    """None where neither a place, nor a rank, nor a batch is known.

    A finding of the run as a whole has the place of what moved first, where that has one.
    """
    batch = _batch(run, root.onset_step) if cause and _blames_a_batch(cause) else None
    names = [name for name in root.sites[:1] if name != "run"]
    if not names and mover is not None and _points_at_a_place(mover) and batch is None:
        names = [mover.site]
    site = next((found for name in names if (found := _site(run, name, root))), None)
    rank = _rank(run, root, names)
    if site is None:
        return Culprit(rank=rank, batch=batch) if batch or rank is not None else None
    name, parts = _parts(site)
    described = next((s for s in run.sites("output") if s.name == name), site)
    return Culprit(
        module=name,
        module_type=described.module_type,
        parameter=site.name if site.module != site.name else "",
        source=_source(run, name, described.source),
        rank=rank,
        batch=batch,
        **parts,
    )


def _points_at_a_place(mover: FirstMover) -> bool:
    """What moves with the loss is as likely moved by it."""
    return not mover.series.startswith(("run.", "batch.")) and (mover.lead is None or mover.lead > 0)


def _site(run: Run, name: str, root: Finding) -> Site | None:
    """The site `name`, in the kinds that the evidence speaks of before others."""
    kinds: Iterable[str] = dict.fromkeys([*(e.series.partition(".")[0] for e in root.evidence), *run.kinds])
    named = (site for kind in kinds if kind not in NO_PLACE for site in run.sites(kind))
    return next((site for site in named if site.name == name), None)


def _parts(site: Site) -> tuple[str, dict[str, int]]:
    """The name of the module, and the number of its head or expert."""
    found = PART.fullmatch(site.name)
    if not found:
        return site.module, {}
    return found[1], {"head" if found[2] == "h" else "expert": int(found[3])}


def _source(run: Run, module: str, own: str) -> str:
    """Where the class is defined that a person can change: a linear layer's own file is torch's."""
    if own and not LIBRARY.search(own):
        return own
    sources = {site.name: site.source for site in run.sites("output")}
    around = module
    while around:
        around = around.rpartition(".")[0]
        source = sources.get(around, "")
        if source and not LIBRARY.search(source):
            return source
    # The root module goes by the name of its class, and comes last.
    outermost = max(run.sites("output"), key=lambda site: site.order, default=None)
    outer = outermost.source if outermost and "." not in outermost.name else ""
    return outer if outer and not LIBRARY.search(outer) else own


def _rank(run: Run, root: Finding, names: list[str]) -> int | None:
    """The process that is alone with it, in a world of several."""
    named = next((found for name in names if (found := RANK.fullmatch(name))), None)
    if named:
        return int(named[1])
    told = root.facts.get("rank")
    if told is not None and np.isfinite(told):
        return int(told)
    if run.info.processes < 2 and run.info.world_size < 2:
        return None
    ranks = {event.rank for event in run.events_of("nonfinite") if event.step == root.onset_step}
    return ranks.pop() if len(ranks) == 1 else None


def _blames_a_batch(cause: CauseRanked) -> bool:
    return cause.id in CAUSES and "skip-batch" in CAUSES[cause.id].fixes


def _batch(run: Run, step: int) -> Batch:
    prints = (history(run, "batch.fingerprint", site.name) for site in run.sites("batch"))
    here = [p.within(step, step).finite().values for p in prints]
    taken = next((int(values[0]) for values in here if len(values)), None)
    return Batch(step, taken, tuple(other_uses(run, step)))
