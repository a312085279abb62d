"""One self-contained report.html: what it says is HTML, and the script in it only adds to that."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render import bundle, describe, figures, numbers, svg
from stabdiag.render.card import card_of
from stabdiag.render.curve import loss_curve, nonfinite_steps
from stabdiag.render.dashboard import Dashboard, load_dashboard
from stabdiag.render.document import embedded, environment, source, write_document
from stabdiag.render.facts import facts
from stabdiag.render.heat_data import heat_data
from stabdiag.render.hosts import host_codes
from stabdiag.render.layers import layers, site_slugs
from stabdiag.render.policy import policy
from stabdiag.render.sections import Shown, shown_sections
from stabdiag.render.statistics import statistics
from stabdiag.render.untrusted import name

Plotly = Literal["inline", "cdn"]
LAYERS, INCIDENTS, HEAT_MAP = "views/layers.html", "views/incidents.html", "views/heatmap.html"


def write_page(
    run: Run,
    diagnosis: Diagnosis,
    path: Path,
    plotly: Plotly = "inline",
    dashboard: Dashboard | None = None,
) -> None:
    """Raises StabdiagError where `path` cannot be written."""
    write_document(render_page(run, diagnosis, plotly, dashboard), path)


def render_page(
    run: Run, diagnosis: Diagnosis, plotly: Plotly = "inline", dashboard: Dashboard | None = None
) -> str:
    """Equal bytes for equal runs. With `cdn` the page loads plotly.js, and that alone. `dashboard` says what
    follows the verdict."""
    shown = shown_sections(run, dashboard or load_dashboard())
    templates = {part.template: part.panel for section in shown for part in section.parts if part.template}
    found = layers(run, diagnosis) if LAYERS in templates else []
    slugs = site_slugs(found, run) if found else {}
    cards = [card_of(run, diagnosis, rank, incident) for rank, incident in enumerate(diagnosis.incidents, 1)]
    movers = [m for i in diagnosis.incidents if (m := i.first_mover) and m.series != "run.loss"]
    timeline = svg.chart(
        [loss_curve(run)],
        "loss over steps",
        spans=[(card.root.onset_step, card.root.last_step) for card in cards],
        broken=nonfinite_steps(run),
        movers=[mover.step for mover in movers],
    )
    charts = {f"evidence-{card.rank}": card.spec for card in cards if card.spec}
    if timeline:
        charts["timeline"] = figures.timeline(run, diagnosis)
    anchors = _anchors(diagnosis) if INCIDENTS in templates else []
    charts |= _part_charts(shown)
    selectable = templates[HEAT_MAP].matching(run.series) or run.series if HEAT_MAP in templates else ()
    heat, cells = heat_data(run, diagnosis, slugs, selectable, _mapped(shown))
    style, *scripts = (source(name) for name in ("style.css", "first.js", "page.js", "charts.js"))
    address = bundle.address() if plotly == "cdn" else ""
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
        command=describe.again(run),
        next_commands=describe.next_commands(run, diagnosis),
        data=embedded({"charts": charts, "heat": heat}),
        cells=Markup(cells),
        has_heat=bool(heat["selectable"]),
        plotly=Markup(bundle.inline()) if plotly == "inline" else "",
        address=address,
        integrity=bundle.digest(),
        unwanted=bundle.unwanted_styles(),
        policy=Markup(policy(style, scripts, plotly=address or f"'{bundle.digest()}'")),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
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


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


@cache
def _template() -> jinja2.Template:
    made = environment(
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
        name=name,
    )
    made.globals.update(describe=describe, statistics=statistics, host_codes=host_codes)
    return made.get_template("page.html")
