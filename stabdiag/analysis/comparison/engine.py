"""Two runs in, a comparison out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from stabdiag.analysis.comparison.apart import Tolerance, tolerance_of
from stabdiag.analysis.comparison.bits import Bits, same_bits
from stabdiag.analysis.comparison.flow import Place, place_of
from stabdiag.analysis.comparison.given import given, is_drawn
from stabdiag.analysis.comparison.levels import levels
from stabdiag.analysis.comparison.only import only_in
from stabdiag.analysis.comparison.pairs import comparable_batches
from stabdiag.analysis.comparison.partings import first_parting, held, watched
from stabdiag.analysis.comparison.settings import is_foreign, settings
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.comparison import Comparison, Level, Parting
from stabdiag.core.errors import StabdiagError
from stabdiag.core.run import Run
from stabdiag.core.site import Site

LEVELS = 12
"""Sites whose levels differ most that are told, beside those of the run itself."""


def compare(a: Run, b: Run) -> Comparison:
    """Where `b` parts from `a`, and what followed. StabdiagError where one holds no recorded step."""
    for run in (a, b):
        if not run.steps:
            raise StabdiagError(f"{run.path} holds no recorded step", "nothing can be compared with it")
    # A diverging run overflows and divides by zero.
    with np.errstate(all="ignore"):
        tolerance, seen = tolerance_of(a, b), _Seen()
        bits = same_bits(a, b, tolerance)
        seen.partings += [(_place(site, p), p) for site, p in given(a, b, tolerance)]
        for series in watched(a, b):
            seen.look(a, b, series, tolerance, bits)
    firsts = _firsts(seen.partings)
    drawn = any(is_drawn(parting, _first_step(a, b)) for parting in firsts)
    own, others = diagnose(a), diagnose(b)
    return Comparison(
        a=_name(a),
        b=_name(b),
        steps=(a.steps, b.steps),
        values=bits.values,
        verdict=_verdict(bits, firsts, drawn),
        identical_until=bits.until,
        first_bit=bits.first,
        first=firsts[0] if firsts else None,
        followed=tuple(firsts[1:]),
        levels=seen.told,
        settings=settings(a, b),
        only_a=only_in(a, b, own, others),
        only_b=only_in(b, a, others, own),
        notes=(*_notes(a, b), *seen.notes),
    )


@dataclass
class _Seen:
    """What the series that are held against each other show, one after another: they may be large."""

    partings: list[tuple[Place, Parting]] = field(default_factory=list)
    run_levels: list[Level] = field(default_factory=list)
    site_levels: list[tuple[float, Level]] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    between: list[str] = field(default_factory=list)

    def look(self, a: Run, b: Run, series: str, tolerance: Tolerance, bits: Bits) -> None:
        found = held(a, b, series, tolerance)
        if found is None:
            self.lacking.append(series)
            return
        if found.pair.interpolated:
            self.between.append(series)
        if bits.first or not bits.values:
            parting = first_parting(found, -1 if bits.until is None else bits.until)
            self.partings += [parting] if parting else []
        ranked = list(levels(found, tolerance))
        if found.pair.kind == "run":
            self.run_levels += [level for _, level in ranked]
        else:
            self.site_levels += [(beyond, level) for beyond, level in ranked if level.beyond]

    @property
    def told(self) -> tuple[Level, ...]:
        """Of the run itself all, and of the sites those that are farthest beyond each other's bands. A
        container that returns its child's tensor is not told beside it."""
        ranked = sorted(self.site_levels, key=lambda one: (-one[0], one[1].series, one[1].site))
        once = {(level.series, level.a, level.b): level for _, level in reversed(ranked)}
        kept = [level for _, level in ranked if once[level.series, level.a, level.b] is level]
        return (*self.run_levels, *kept[:LEVELS])

    @property
    def notes(self) -> Iterator[str]:
        if self.lacking:
            yield f"never recorded at common places and steps: {', '.join(self.lacking)}"
        if self.between:
            yield f"recorded at other steps in each run, and read between them: {', '.join(self.between)}"


def _place(site: Site, parting: Parting) -> Place:
    """A setting parted right after the record before; batches are drawn anew."""
    return place_of(parting.series, site, parting.within + 1 if site.kind == "run" else parting.step)


def _verdict(bits: Bits, firsts: list[Parting], drawn: bool) -> str:
    if not bits.values and not firsts:
        return "incomparable"
    if drawn:
        return "unpaired"
    if firsts:
        return "part"
    return "same" if bits.first else "identical"


def _firsts(found: list[tuple[Place, Parting]]) -> list[Parting]:
    """The first of each series, most upstream first."""
    first: dict[str, Parting] = {}
    for _, parting in sorted(found, key=lambda one: one[0]):
        first.setdefault(parting.series, parting)
    return list(first.values())


def _first_step(a: Run, b: Run) -> int:
    """The first step that both recorded anything of."""
    return max(min(int(d.steps[0]) for d in run.kinds.values() if len(d.steps)) for run in (a, b))


def _notes(a: Run, b: Run) -> Iterator[str]:
    """What limits the comparison."""
    for name, run in (("A", a), ("B", b)):
        if is_foreign(run):
            yield (
                f"{name} is the log of another tool, which counts steps and averages its own way, and does "
                "not say how it was trained"
            )
    worlds = (a.info.world_size, b.info.world_size)
    if worlds[0] != worlds[1]:
        yield (
            f"{worlds[0]} against {worlds[1]} processes, each read as one run; gradients with respect to "
            "outputs are left out: each process has those of its own samples' loss"
        )
    if "batch.fingerprint" in a and "batch.fingerprint" in b and not comparable_batches(a, b):
        yield "whether the batches are the same is not known: each process fingerprints its own, in its type"


def _name(run: Run) -> str:
    return str(run.path) if run.path else "run"
