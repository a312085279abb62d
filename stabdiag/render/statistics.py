"""Every series of a run in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.envelope import last_values
from stabdiag.render.kind import unit_of
from stabdiag.render.numbers import number


@dataclass(frozen=True)
class Statistic:
    """One series over its sites, each at its last measured step. `where` has the highest."""

    series: str
    unit: str
    lowest: str
    middle: str
    highest: str
    where: str


def statistics(run: Run) -> list[Statistic]:
    """Of the series in which anything was measured, by their names."""
    return [found for kind in sorted(run.kinds) for found in _of_kind(run, kind)]


def _of_kind(run: Run, kind: str) -> Iterator[Statistic]:
    for name, values in run.kinds[kind].values.items():
        last = last_values(values)
        measured = np.flatnonzero(np.isfinite(last))
        if not len(measured) or (name == "nonfinite" and not (values > 0).any()):
            continue
        best = int(measured[last[measured].argmax()])
        kept = last[measured]
        yield Statistic(
            f"{kind}.{name}",
            unit_of(f"{kind}.{name}"),
            number(float(kept.min())),
            number(float(np.median(kept))),
            number(float(kept.max())),
            run.sites(kind)[best].name if len(run.sites(kind)) > 1 else "",
        )
