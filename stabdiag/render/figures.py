"""Charts as plain plotly specifications; a colour is the name of a CSS variable, which the page resolves."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.diagnosis import Diagnosis, FirstMover
from stabdiag.core.finding import Evidence, Finding
from stabdiag.core.run import Run
from stabdiag.render import untrusted
from stabdiag.render.curve import Curve, curves, loss_curve, nonfinite_steps
from stabdiag.render.downsample import downsample, spans_decades
from stabdiag.render.numbers import count

POINTS = 1000
EVIDENCE_SITES = 4
LEARNING_RATES = 4
FEW_STEPS = 5
MOVERS = 3
"""Incidents whose first mover the timeline marks."""


def packed(values: NDArray[np.generic]) -> dict[str, str]:
    """A typed array as plotly takes it, in a quarter of the bytes of a list; NaN survives."""
    narrow = values.astype("<i4") if values.dtype.kind in "iu" else values.astype("<f4")
    return {"dtype": narrow.dtype.str[1:], "bdata": base64.b64encode(narrow.tobytes()).decode("ascii")}


def plotly_text(text: str) -> str:
    """Plotly reads a little HTML in its texts: this says `text` itself."""
    return html.escape(text, quote=False)


def timeline(run: Run, diagnosis: Diagnosis) -> dict[str, Any]:
    """Loss, with the spans of the incidents and the non-finite steps, and the learning rate under it."""
    loss = loss_curve(run)
    data = [_line(loss.thinned(POINTS), 0, "loss")]
    # Parameter groups mostly share one schedule: the same line is drawn once.
    shared = {c.values.tobytes(): c for c in reversed(curves(run, "run.lr", (), LEARNING_RATES))}
    rates = list(reversed(shared.values()))
    for i, rate in enumerate(rates):
        name = "learning rate" if i == 0 else f"learning rate, {rate.name}"
        data.append({**_line(rate.thinned(POINTS), i + 1, name), "yaxis": "y2"})
    data += _marks(nonfinite_steps(run))
    spans = [diagnosis.findings[incident.root] for incident in diagnosis.incidents]
    floor = 0.32 if rates else 0
    movers = [incident.first_mover for incident in diagnosis.incidents if incident.first_mover]
    layout = {
        "height": 380,
        "xaxis": {**_steps_axis([loss, *rates]), "anchor": "y2" if rates else "y"},
        "yaxis": {"title": {"text": "loss"}, "domain": [floor, 1], **_scale(loss.finite)},
        "yaxis2": {"title": {"text": "lr"}, "domain": [0, 0.24], "nticks": 4, "rangemode": "tozero"},
        "yaxis3": _hidden([floor, 1]),
        "shapes": [
            *(_shaded(finding, rank) for rank, finding in enumerate(spans, 1)),
            *(shape for mover in movers[:MOVERS] for shape in _moved(mover)),
        ],
    }
    return {"data": data, "layout": layout}


def evidence_chart(run: Run, finding: Finding, evidence: Evidence) -> dict[str, Any] | None:
    """A finding's series at its sites against threshold and healthy band; None where the run lacks it."""
    shown = curves(run, evidence.series, evidence.sites or finding.sites, EVIDENCE_SITES)
    if not shown:
        return None
    values = np.concatenate([c.finite for c in shown])
    broken = np.unique(np.concatenate([c.steps[np.isnan(c.values)] for c in shown]))
    shapes = [_shaded(finding, None)]
    if evidence.band is not None and all(np.isfinite(evidence.band)):
        shapes.append(_across(evidence.band, "--band"))
    if evidence.threshold is not None and np.isfinite(evidence.threshold):
        shapes.append(_level(evidence.threshold))
    layout = {
        "height": 280,
        "xaxis": _steps_axis(shown),
        "yaxis": {"title": {"text": evidence.series}, **_scale(values, evidence.log)},
        "yaxis3": _hidden([0, 1]),
        "shapes": shapes,
    }
    limit = POINTS // len(shown)
    names = [evidence.series if c.name == "run" else c.name for c in shown]
    lines = [_line(c.thinned(limit), i, name) for i, (c, name) in enumerate(zip(shown, names, strict=True))]
    return {"data": lines + _marks(broken), "layout": layout}


def line_chart(
    shown: Sequence[Curve],
    names: Sequence[str],
    unit: str,
    *,
    log: bool = False,
    level: tuple[float, str] | None = None,
) -> dict[str, Any]:
    """`shown` by their `names`, as they are, and their non-finite steps; `level` is a limit and its name."""
    values = np.concatenate([c.finite for c in shown])
    broken = np.unique(np.concatenate([c.steps[np.isnan(c.values)] for c in shown]))
    layout = {
        "height": 260,
        "xaxis": _steps_axis(shown),
        "yaxis": {"title": {"text": plotly_text(unit)}, **_scale(values, log)},
        "yaxis3": _hidden([0, 1]),
        "shapes": [_level(*level)] if level else [],
    }
    data = [_line(c, i, name) for i, (c, name) in enumerate(zip(shown, names, strict=True))]
    return {"data": data + _marks(broken), "layout": layout}


def _steps_axis(shown: Sequence[Curve]) -> dict[str, Any]:
    """All steps of `shown`, to the edges; never a tick between two steps."""
    steps = np.concatenate([c.steps for c in shown])
    first, last = int(steps.min()), int(steps.max())
    ticks = {"dtick": 1} if last - first < FEW_STEPS else {}
    return {"title": {"text": "step"}, "range": [first - 0.5, last + 0.5], **ticks}


def _scale(values: NDArray[np.float64], log: bool = False) -> dict[str, Any]:
    """A logarithmic axis for positive values over decades, or where `log` wishes it, with a tick a decade."""
    if not len(values) or not (spans_decades(values) or (log and values.min() > 0)):
        return {"type": "linear"}
    decades = float(np.log10(values.max() / values.min()))
    if decades < 1:
        return {"type": "log"}
    # "D2": at 1, 2 and 5 of each decade; all nine would stand on each other.
    return {"type": "log", "dtick": math.ceil(decades / 6) if decades >= 2 else "D2"}


def _line(curve: Curve, position: int, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(curve.finite) > 1 else "markers",
        "name": plotly_text(untrusted.name(name)),
        "x": packed(curve.steps),
        "y": packed(curve.values),
        "line": {"color": f"--series-{position % 5}", "width": 1.5},
        "marker": {"color": f"--series-{position % 5}"},
        "hovertemplate": "%{y:.4~g}",
    }


def _marks(steps: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Non-finite steps as ticks along the foot of the chart."""
    if not len(steps):
        return []
    shown = steps[downsample(steps.astype(np.float64), POINTS)]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "not finite",
            "x": packed(shown),
            "y": packed(np.full(len(shown), 0.03)),
            "yaxis": "y3",
            "marker": {"color": "--broken", "symbol": "line-ns-open", "size": 10, "line": {"width": 1.5}},
            "hovertemplate": "not finite",
        }
    ]


def _hidden(domain: Sequence[float]) -> dict[str, Any]:
    return {"domain": domain, "range": [0, 1], "visible": False, "fixedrange": True, "overlaying": "y"}


def _shaded(finding: Finding, rank: int | None) -> dict[str, Any]:
    shape = {
        "type": "rect",
        "yref": "y domain",
        "x0": finding.onset_step - 0.5,
        "x1": max(finding.last_step, finding.onset_step) + 0.5,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "fillcolor": f"--span-{finding.severity}",
        "line": {"width": 1, "color": f"--span-{finding.severity}"},
    }
    if rank is not None:
        font = {"color": "--muted", "size": 11}
        shape["label"] = {"text": str(rank), "textposition": "top left", "font": font}
    return shape


def _moved(mover: FirstMover) -> list[dict[str, Any]]:
    """Where something left its band first, and from there to where the loss left its own."""
    line = {"color": "--mover", "width": 1.5, "dash": "dot"}
    upright = {"yref": "y domain", "x0": mover.step, "x1": mover.step, "y0": 0, "y1": 1}
    shapes = [{"type": "line", **upright, "line": line}]
    if mover.lead is not None and mover.lead > 0:
        ends = {"x0": mover.step, "x1": mover.step + mover.lead, "y0": 0.84, "y1": 0.84}
        font = {"color": "--mover", "size": 11}
        label = {"text": count(mover.lead, "step"), "yanchor": "bottom", "font": font}
        bar = {"color": "--mover", "width": 4}
        shapes.append({"type": "line", "yref": "y domain", **ends, "line": bar, "label": label})
    return shapes


def _across(band: tuple[float, float], colour: str) -> dict[str, Any]:
    low, high = band
    ends = {"xref": "x domain", "x0": 0, "x1": 1, "y0": low, "y1": high}
    return {"type": "rect", **ends, "layer": "below", "fillcolor": colour, "line": {"width": 0}}


def _level(threshold: float, name: str = "threshold") -> dict[str, Any]:
    ends = {"xref": "x domain", "x0": 0, "x1": 1, "y0": threshold, "y1": threshold}
    label = {"text": name, "textposition": "start", "font": {"color": "--muted", "size": 11}}
    return {"type": "line", **ends, "line": {"color": "--muted", "width": 1, "dash": "dash"}, "label": label}
