"""An incident as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render import describe, figures, svg
from stabdiag.render.argument import Argument, argument
from stabdiag.render.curve import curves


@dataclass(frozen=True)
class Card:
    """`chart` is the evidence as SVG, `spec` as a plotly chart; `symptoms` are ordered by their onsets."""

    rank: int
    incident: Incident
    root: Finding
    graver: str
    symptoms: list[Finding]
    explanation: str
    caption: str
    chart: Markup
    spec: dict[str, Any] | None
    argument: Argument


def card_of(run: Run, diagnosis: Diagnosis, rank: int, incident: Incident) -> Card:
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
        describe.graver(diagnosis, incident),
        sorted(describe.symptoms(diagnosis, incident), key=lambda finding: finding.onset_step),
        SIGNATURES[root.signature].doc if root.signature in SIGNATURES else "",
        evidence.series if evidence else "",
        chart,
        spec if chart else None,
        argument(root, incident),
    )
