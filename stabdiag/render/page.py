"""One self-contained report.html: what it says is HTML, and the script in it only adds to that."""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from collections.abc import Sequence
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
from stabdiag.render.curve import curves, loss_curve, nonfinite_steps
from stabdiag.render.dashboard import Dashboard, load_dashboard
from stabdiag.render.facts import facts
from stabdiag.render.heatmap import heat_maps
from stabdiag.render.kind import unit_of
from stabdiag.render.layers import layers, site_slugs
from stabdiag.render.sections import Shown, shown_sections
from stabdiag.render.statistics import statistics

Plotly = Literal["inline", "cdn"]
CELLS = (500_000, 250_000, 125_000)
"""Cells of all heat maps together, the first number that packs into so many bytes: beside plotly.js a page
has one megabyte left."""
PACKED = 250_000
LAYERS, INCIDENTS, HEAT_MAP = "views/layers.html", "views/incidents.html", "views/heatmap.html"


def write_page(
    run: Run,
    diagnosis: Diagnosis,
    path: Path,
    plotly: Plotly = "inline",
    dashboard: Dashboard | None = None,
) -> None:
    """Raises StabdiagError where `path` cannot be written."""
    page = render_page(run, diagnosis, plotly, dashboard)
    try:
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StabdiagError(
            f"cannot write {path}: {error.strerror}", "give another place by --output"
        ) from None


def render_page(
    run: Run, diagnosis: Diagnosis, plotly: Plotly = "inline", dashboard: Dashboard | None = None
) -> str:
    """Equal bytes for equal runs. With `cdn` the page loads plotly.js, and that alone. `dashboard` says what
    follows the verdict."""
    shown = shown_sections(run, dashboard or load_dashboard())
    templates = {part.template: part.panel for section in shown for part in section.parts if part.template}
    found = layers(run, diagnosis) if LAYERS in templates else []
    slugs = site_slugs(found, run) if found else {}
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
    anchors = _anchors(diagnosis) if INCIDENTS in templates else []
    charts |= _part_charts(shown)
    selectable = templates[HEAT_MAP].matching(run.series) or run.series if HEAT_MAP in templates else ()
    heat, cells = _heat(run, diagnosis, slugs, selectable, _mapped(shown))
    return _template().render(
        run=run,
        diagnosis=diagnosis,
        sections=shown,
        cards=cards,
        timeline=timeline,
        layers=found,
        slugs=slugs,
        anchors=anchors,
        others=[(f"finding-{i}", diagnosis.findings[i]) for i in describe.other_indices(diagnosis)],
        facts=facts(run, diagnosis),
        command=shlex.join(run.info.command or diagnosis.run.get("command") or ()),
        next_commands=describe.next_commands(run, diagnosis),
        data=_embedded({"charts": charts, "heat": heat}),
        cells=cells,
        has_heat=bool(heat["selectable"]),
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


def _part_charts(shown: list[Shown]) -> dict[str, Any]:
    parts = [(f"{section.id}-{i}", part) for section in shown for i, part in enumerate(section.parts)]
    drawings = [(f"{name}-{i}", one) for name, part in parts for i, one in enumerate(part.drawings)]
    return {name: one.spec for name, one in drawings if one.spec}


def _mapped(shown: list[Shown]) -> list[str]:
    """The series of which a panel is a map."""
    drawings = (one for section in shown for part in section.parts for one in part.drawings)
    return [one.map for one in drawings if one.map]


def _anchors(diagnosis: Diagnosis) -> list[str]:
    """Where on the page each finding is told: its incident's card, or the list of the others."""
    anchors = [f"finding-{i}" for i in range(len(diagnosis.findings))]
    for rank, incident in enumerate(diagnosis.incidents, 1):
        for i in (incident.root, *incident.findings):
            anchors[i] = f"incident-{rank}"
    return anchors


def _heat(
    run: Run, diagnosis: Diagnosis, slugs: dict[str, str], selectable: Sequence[str], mapped: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """What the heat map's script needs, and the cells of all maps as base64(gzip(bytes))."""
    wanted = {*selectable, *mapped}
    series = [name for name in run.series if name in wanted]
    for cells in CELLS:
        maps = heat_maps(run, series, cells)
        raw = gzip.compress(b"".join(m.cells.tobytes() for m in maps), 9, mtime=0)
        if len(raw) <= PACKED:
            break
    names = {m.series for m in maps}
    telling = [e.series for finding in diagnosis.findings for e in finding.evidence if e.series in names]
    # Kinds that have the same sites share one list of them.
    rows = {m.series.partition(".")[0]: tuple((s.name, slugs.get(s.name, "")) for s in m.sites) for m in maps}
    shared = list(dict.fromkeys(rows.values()))
    described = [
        {
            "series": m.series,
            "unit": unit_of(m.series),
            "steps": figures.packed(m.steps),
            "values": figures.packed(m.values),
            "columns": len(m.steps),
        }
        for m in maps
    ]
    heat = {
        "maps": described,
        "rows": shared,
        "kinds": {kind: shared.index(sites) for kind, sites in rows.items()},
        "onsets": [incident.onset_step for incident in diagnosis.incidents],
        "selectable": [name for name in selectable if name in names],
        "first": next(iter(telling), "output.rms" if "output.rms" in names else ""),
    }
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
    environment.globals.update(describe=describe, statistics=statistics)
    return environment.get_template("page.html")
