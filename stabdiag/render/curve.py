"""One site's course of one series, as a chart wants it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.run import Run
from stabdiag.render.downsample import downsample

OF_THE_LOSS = frozenset({"loss", "grad_norm", "clipped_grad_norm"})
"""Statistics of the run that are not finite where its loss is not: `run.nonfinite` counts losses alone."""


@dataclass(frozen=True)
class Curve:
    """`values` (float64) at `steps` (int64), both [n], measured steps only; NaN where not finite."""

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def finite(self) -> NDArray[np.float64]:
        return self.values[np.isfinite(self.values)]

    def thinned(self, limit: int) -> Curve:
        kept = downsample(self.values, limit)
        return Curve(self.name, self.steps[kept], self.values[kept])


def curve(run: Run, series: str, site: str) -> Curve:
    """KeyError where the series has no such site, MissingSeries where the run lacks the series.

    A NaN counts as measured only where the series' flag says so.
    """
    table = run.table(series)
    values = table.column(site).astype(np.float64)
    measured = ~np.isnan(values)
    flag = flag_of(run, series)
    if flag is not None:
        measured |= run.table(flag).column(site) > 0
    kept = values[measured]
    kept[np.isinf(kept)] = np.nan
    return Curve(site, table.steps[measured], kept)


def flag_of(run: Run, series: str) -> str | None:
    """The series that is positive where a NaN of this one is a measured one; None where nothing tells."""
    kind, _, statistic = series.partition(".")
    flag = f"{kind}.nonfinite"
    told = flag in run and statistic != "nonfinite" and (kind != "run" or statistic in OF_THE_LOSS)
    return flag if told else None


def curves(run: Run, series: str, sites: tuple[str, ...], most: int) -> list[Curve]:
    """Those of `sites` (all of the series' own where it is empty) that were measured, at most `most`."""
    if series not in run:
        return []
    known = run.table(series).names
    wanted = [site for site in sites if site in known] or list(known)
    found = (curve(run, series, site) for site in wanted)
    return [c for c, _ in zip((c for c in found if len(c.steps)), range(most), strict=False)]


def loss_curve(run: Run) -> Curve:
    """The run's loss; empty where none was found."""
    found = curves(run, "run.loss", (), 1)
    return found[0] if found else Curve("loss", np.zeros(0, np.int64), np.zeros(0))


def nonfinite_steps(run: Run) -> NDArray[np.int64]:
    """Steps at which anything that was recorded was not finite, increasing."""
    found = [positive_steps(run, f"{kind}.nonfinite") for kind in run.kinds if f"{kind}.nonfinite" in run]
    if "run.loss" in run:
        table = run.table("run.loss")
        found.append(table.steps[np.isinf(table.values).any(axis=1)])
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def positive_steps(run: Run, series: str) -> NDArray[np.int64]:
    """Steps at which the series was above zero at any site."""
    table = run.table(series)
    return table.steps[(table.values > 0).any(axis=1)]
