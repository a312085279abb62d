"""One self-contained report.html: what it says is HTML, and the script in it only adds to that."""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render import bundle, describe, figures, numbers, svg
from stabdiag.render.cost import cost
from stabdiag.render.curve import curves, loss_curve, nonfinite_steps
from stabdiag.render.facts import facts
from stabdiag.render.heatmap import heat_maps
from stabdiag.render.instruments import Instrument, instruments
from stabdiag.render.layers import layers, site_slugs
from stabdiag.render.view import unit_of

Plotly = Literal["inline", "cdn"]


def write_page(run: Run, diagnosis: Diagnosis, path: Path, plotly: Plotly = "inline") -> None:
    """Raises StabdiagError where `path` cannot be written."""
    page = render_page(run, diagnosis, plotly)
    try:
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StabdiagError(
            f"cannot write {path}: {error.strerror}", "give another place by --output"
        ) from None


def render_page(run: Run, diagnosis: Diagnosis, plotly: Plotly = "inline") -> str:
    """Equal bytes for equal runs. With `cdn` the page loads plotly.js, and that alone."""
    found = layers(run, diagnosis)
    slugs = site_slugs(found, run)
    cards = [_card(run, diagnosis, rank, incident) for rank, incident in enumerate(diagnosis.incidents, 1)]
    timeline = svg.chart(
        [loss_curve(run)],
        "loss over steps",
        spans=[(card.root.onset_step, card.root.last_step) for card in cards],
        broken=nonfinite_steps(run),
    )
    charts = {f"evidence-{card.rank}": card.spec for card in cards if card.spec}
    if timeline:
        charts["timeline"] = figures.timeline(run, diagnosis)
    anchors = _anchors(diagnosis)
    measured = instruments(run)
    charts |= _panel_charts(measured)
    heat, cells = _heat(run, diagnosis, slugs)
    return _template().render(
        run=run,
        diagnosis=diagnosis,
        cards=cards,
        timeline=timeline,
        layers=found,
        instruments=measured,
        cost=cost(run, diagnosis),
        slugs=slugs,
        anchors=anchors,
        others=[(anchors[i], f) for i, f in enumerate(diagnosis.findings) if anchors[i] == f"finding-{i}"],
        facts=facts(run, diagnosis),
        command=shlex.join(run.info.command or diagnosis.run.get("command") or ()),
        next_commands=describe.next_commands(run, diagnosis),
        data=_embedded({"charts": charts, "heat": heat}),
        cells=cells,
        has_heat=bool(heat["maps"]),
        plotly=bundle.inline() if plotly == "inline" else "",
        plotly_address=bundle.public() if plotly == "cdn" else None,
    )


@dataclass(frozen=True)
class Card:
    """One incident as the page shows it; `chart` is the evidence as SVG and `spec` as a plotly chart."""

    rank: int
    incident: Incident
    root: Finding
    symptoms: list[Finding]
    explanation: str
    caption: str
    chart: Markup
    spec: dict[str, Any] | None


def _card(run: Run, diagnosis: Diagnosis, rank: int, incident: Incident) -> Card:
    root = diagnosis.findings[incident.root]
    evidence = describe.first_evidence(root)
    chart, spec = Markup(""), None
    if evidence is not None:
        spec = figures.evidence_chart(run, root, evidence)
        shown = curves(run, evidence.series, evidence.sites or root.sites, figures.EVIDENCE_SITES)
        levels = [] if evidence.threshold is None else [evidence.threshold]
        chart = svg.chart(shown, evidence.series, spans=[(root.onset_step, root.last_step)], levels=levels)
    return Card(
        rank,
        incident,
        root,
        describe.symptoms(diagnosis, incident),
        SIGNATURES[root.signature].doc if root.signature in SIGNATURES else "",
        evidence.series if evidence else "",
        chart,
        spec if chart else None,
    )


def _panel_charts(measured: list[Instrument]) -> dict[str, Any]:
    panels = [(f"{one.kind}-{i}", panel) for one in measured for i, panel in enumerate(one.panels)]
    return {f"panel-{name}": panel.spec for name, panel in panels if panel.spec}


def _anchors(diagnosis: Diagnosis) -> list[str]:
    """Where on the page each finding is told: its incident's card, or the list of the others."""
    anchors = [f"finding-{i}" for i in range(len(diagnosis.findings))]
    for rank, incident in enumerate(diagnosis.incidents, 1):
        for i in (incident.root, *incident.findings):
            anchors[i] = f"incident-{rank}"
    return anchors


def _heat(run: Run, diagnosis: Diagnosis, slugs: dict[str, str]) -> tuple[dict[str, Any], str]:
    """What the heat map's script needs, and the cells of all maps as base64(gzip(bytes))."""
    maps = heat_maps(run)
    names = {m.series for m in maps}
    telling = [e.series for finding in diagnosis.findings for e in finding.evidence if e.series in names]
    rows = {m.series.partition(".")[0]: [[s.name, slugs.get(s.name, "")] for s in m.sites] for m in maps}
    described = [
        {
            "series": m.series,
            "unit": unit_of(m.series),
            "steps": figures.packed(m.steps),
            "values": figures.packed(m.values),
            "columns": len(m.steps),
            "log": m.log,
        }
        for m in maps
    ]
    raw = gzip.compress(b"".join(m.cells.tobytes() for m in maps), 9, mtime=0)
    onsets = [incident.onset_step for incident in diagnosis.incidents]
    first = next(iter(telling), "output.rms" if "output.rms" in names else "")
    heat = {"maps": described, "rows": rows, "onsets": onsets, "first": first}
    return heat, base64.b64encode(raw).decode("ascii")


def _embedded(value: Any) -> Markup:
    """JSON that no browser takes for markup."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stabdiag.render"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        sentence=_sentence,
        number=numbers.number,
        count=numbers.count,
        percent=numbers.percent,
        spark=svg.spark,
        place=describe.place,
        title_of=describe.signature_title,
        cause_title=describe.cause_title,
        span=describe.span,
        measure=describe.measure,
    )
    environment.globals.update(describe=describe)
    return environment.get_template("page.html")
