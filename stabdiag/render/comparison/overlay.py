"""Both runs in one chart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from stabdiag.core.comparison import Comparison, Parting
from stabdiag.core.run import Run
from stabdiag.render import svg
from stabdiag.render.comparison import words
from stabdiag.render.curve import Curve, curves
from stabdiag.render.downsample import spans_decades

ALWAYS = ("run.loss", "run.lr", "run.grad_norm")
MOST = 8
SPARK = 50
NONE: Curve = Curve("", np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Overlay:
    """A chart of run a (first colour) and run b (second), what it shows, and what is shaded."""

    caption: str
    chart: Markup
    note: str = ""


def overlays(a: Run, b: Run, told: Comparison) -> list[Overlay]:
    """Of the run itself, and of what parted first or settled farthest apart."""
    partings = [p for p in (told.first, *told.followed) if p is not None]
    parted = {p.series: p for p in reversed(partings)}
    always = [series for series in ALWAYS if series != "run.lr" or series in parted]
    drawn = [_overlay(a, b, series, "run", parted.get(series)) for series in always]
    if told.verdict == "unpaired":
        settled = [level for level in told.levels if level.site != "run"]
        drawn += [_overlay(a, b, level.series, level.site, None) for level in settled[:MOST]]
    else:
        measured = [p for p in partings if p.series not in (*ALWAYS, *words.GIVEN)]
        drawn += [_overlay(a, b, p.series, p.site, p) for p in measured[:MOST]]
    return [one for one in drawn if one is not None]


def _overlay(a: Run, b: Run, series: str, site: str, parting: Parting | None) -> Overlay | None:
    """None where neither measured it; shaded is where they are apart."""
    pair = [_curve(run, series, site) for run in (a, b)]
    if not any(len(one.finite) for one in pair):
        return None
    caption = series if site == "run" else f"{series} at {site or 'the model'}"
    broken = np.unique(np.concatenate([one.steps[~np.isfinite(one.values)] for one in pair]))
    spans = [(parting.step, parting.until)] if parting else []
    note = f"apart from {words.when(parting)} on" if parting else ""
    return Overlay(caption, svg.chart(pair, f"{caption}, A and B", spans=spans, broken=broken), note)


def _curve(run: Run, series: str, site: str) -> Curve:
    found = curves(run, series, (site,), 1)
    # Where there is no such site, the first of all stands in for it.
    return found[0] if found and found[0].name == site else NONE


def spark(a: Curve | None, b: Curve | None) -> Markup:
    """Both on one scale, without axes, 100 by 20 units; empty where neither was measured."""
    shown = [(c if c is not None else NONE).thinned(SPARK) for c in (a, b)]
    everything = np.concatenate([c.finite for c in shown])
    if not len(everything):
        return Markup("")
    log = spans_decades(everything)
    scale = (everything.min(), everything.max())
    steps = np.concatenate([c.steps for c in shown])
    first, last = int(steps.min()), int(steps.max())
    paths = [
        Markup('<path class="line s{}" d="{}"/>').format(i, _path(c, (first, last), scale, log))
        for i, c in enumerate(shown)
    ]
    frame = '<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    return Markup(frame).format(Markup("").join(paths))


def _path(curve: Curve, steps: tuple[int, int], scale: tuple[float, float], log: bool) -> str:
    x = 100 * (curve.steps - steps[0]) / max(steps[1] - steps[0], 1)
    values: NDArray[np.float64] = np.log(curve.values) if log else curve.values
    low, high = (np.log(scale) if log else scale) + np.zeros(2)
    y = 19 - 18 * (values - low) / (high - low) if high > low else np.full(len(values), 10.0)
    parts, pen = [], "M"
    for across, up in zip(x, y, strict=True):
        if not np.isfinite(up):
            pen = "M"
            continue
        parts.append(f"{pen}{across:.1f} {up:.1f}")
        pen = "L"
    return "".join(parts)
