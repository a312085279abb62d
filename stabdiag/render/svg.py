"""Small inline SVG: readable without a script, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from stabdiag.render.curve import Curve
from stabdiag.render.downsample import downsample, spans_decades
from stabdiag.render.numbers import count, number
from stabdiag.render.untrusted import presentable

Span = tuple[int, int]
Floats = NDArray[np.float64]
WIDTH, HEIGHT = 720, 200
LEFT, RIGHT, FLOOR, TOP = 64, 712, 178, 8
POINTS = 300


def spark(curve: Curve, limit: int = 75) -> Markup:
    """A curve without axes, 200 by 40 units; a tick at the foot where it is not finite."""
    thin = curve.thinned(limit)
    if not len(thin.values):
        return Markup("")
    x = _scaled(thin.steps.astype(float), float(curve.steps[0]), float(curve.steps[-1]), 0, 200).round()
    y = _heights(thin.values, curve.finite, 38, 2).round()
    ticks = "".join(f"M{at:.0f} 40v-16" for at in x[~np.isfinite(y)])
    broken = Markup('<path class="broken" d="{}"/>').format(ticks) if ticks else Markup("")
    line = Markup('<path d="{}"/>').format(_short_path(x, y))
    return Markup('<svg class="spark" viewBox="0 0 200 40" preserveAspectRatio="none">{}{}</svg>').format(
        line, broken
    )


def _short_path(x: Floats, y: Floats) -> str:
    """As `_path`, of whole numbers and relative: a page may hold thousands."""
    finite = np.isfinite(y)
    parts = []
    across, up = np.nan_to_num(x).astype(int).tolist(), np.nan_to_num(y).astype(int).tolist()
    for i in np.flatnonzero(finite).tolist():
        if i and finite[i - 1]:
            right, down = across[i] - across[i - 1], up[i] - up[i - 1]
            parts.append(f"l{right} {down}".replace(" -", "-") if right else f"v{down}")
        else:
            parts.append(f"M{across[i]} {up[i]}")
            if i + 1 == len(y) or not finite[i + 1]:
                parts.append("h2")
    return "".join(parts)


def chart(
    curves: Sequence[Curve],
    label: str,
    *,
    spans: Sequence[Span] = (),
    levels: Sequence[float] = (),
    broken: Sequence[int] | NDArray[np.int64] = (),
    movers: Sequence[int] = (),
) -> Markup:
    """Curves over steps; `spans` are shaded, `levels` horizontal lines, `broken` steps marks at the foot,
    `movers` steps at which something moved before the curves did."""
    if not any(len(c.finite) for c in curves):
        return Markup("")
    everything = np.concatenate([*(c.finite for c in curves), np.asarray(levels, dtype=np.float64)])
    first = min(int(c.steps[0]) for c in curves if len(c.steps))
    last = max(int(c.steps[-1]) for c in curves if len(c.steps))

    def across(steps: ArrayLike) -> Floats:
        inside = np.clip(np.asarray(steps, dtype=np.float64), first, last)
        return _scaled(inside, first, last, LEFT, RIGHT)

    def up(values: ArrayLike) -> Floats:
        return _heights(np.asarray(values, dtype=np.float64), everything, FLOOR, TOP)

    thin = [c.thinned(POINTS) for c in curves]
    marks = np.asarray(broken)[downsample(np.asarray(broken, dtype=np.float64), POINTS)]
    parts = [
        *(_shade(*across(span)) for span in spans),
        *(f'<path class="level" d="M{LEFT} {_round(y)}H{RIGHT}"/>' for y in up(levels)),
        *(f'<path class="mover" d="M{_round(x)} {TOP}V{FLOOR}"/>' for x in across(movers)),
        *(
            f'<path class="line s{i}" d="{_path(across(c.steps), up(c.values))}"/>'
            for i, c in enumerate(thin)
        ),
        f'<path class="broken" d="{"".join(f"M{_round(x)} {FLOOR}v-10" for x in across(marks))}"/>',
        _axes(number(float(everything.min())), number(float(everything.max())), first, last),
    ]
    frame = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(WIDTH, HEIGHT, presentable(label), Markup("".join(parts)))


def _shade(begin: float, end: float) -> str:
    width = _round(max(end - begin, 2))
    return f'<rect class="span" x="{_round(begin)}" y="{TOP}" width="{width}" height="{FLOOR - TOP}"/>'


def _axes(low: str, high: str, first: int, last: int) -> str:
    return (
        f'<path class="axis" d="M{LEFT} {TOP}V{FLOOR}H{RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{escape(high)}</text>'
        f'<text x="{LEFT - 6}" y="{FLOOR}" text-anchor="end">{escape(low)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">step {count(first)}</text>'
        f'<text x="{RIGHT}" y="{HEIGHT - 6}" text-anchor="end">step {count(last)}</text>'
    )


def _scaled(values: Floats, low: float, high: float, a: float, b: float) -> Floats:
    return a + (values - low) * ((b - a) / (high - low)) if high > low else np.full(len(values), (a + b) / 2)


def _heights(values: Floats, among: Floats, foot: float, head: float) -> Floats:
    """Vertical positions of `values` on the scale that shows all of `among`, logarithmic over decades."""
    if not len(among):
        return np.full(len(values), np.nan)
    if spans_decades(among):
        values, among = np.log(values), np.log(among)
    return _scaled(values, float(among.min()), float(among.max()), foot, head)


def _path(x: Floats, y: Floats) -> str:
    """Path data, lifted over what is not finite; a lone point is a short stroke."""
    parts, drawing = [], False
    for i, (across, up) in enumerate(zip(x, y, strict=True)):
        if not np.isfinite(up):
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{_round(across)} {_round(up)}")
        if not drawing and (i + 1 == len(y) or not np.isfinite(y[i + 1])):
            parts.append("h1")
        drawing = True
    return "".join(parts)


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
