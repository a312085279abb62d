"""What a dashboard shows of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stabdiag.core.run import Run
from stabdiag.render.dashboard import Dashboard, Panel, Section
from stabdiag.render.dashboard_names import OTHERS
from stabdiag.render.drawing import LINES, Drawing
from stabdiag.render.kind import kind_of
from stabdiag.render.layers import slug
from stabdiag.render.view import VIEWS

MOST = 4
"""Series of a kind that no panel names which are drawn."""


@dataclass(frozen=True)
class Part:
    """A panel with its `drawings`, or with the template that draws it."""

    panel: Panel
    drawings: tuple[Drawing, ...] = ()
    template: str = ""


@dataclass(frozen=True)
class Shown:
    """A section of the page; `id` is its anchor."""

    id: str
    title: str
    note: str
    parts: tuple[Part, ...]


def shown_sections(run: Run, dashboard: Dashboard) -> list[Shown]:
    """Those of which the run has anything; a template may still find that there is nothing to tell."""
    found: list[Shown] = []
    seen: Counter[str] = Counter()
    for section in completed(dashboard, run).sections:
        parts = tuple(part for panel in section.panels for part in _part(run, panel))
        if parts:
            name = slug(section.title) or "section"
            seen[name] += 1
            again = f"--{seen[name]}" if seen[name] > 1 else ""
            found.append(Shown(f"section-{name}{again}", section.title, section.note, parts))
    return found


def completed(dashboard: Dashboard, run: Run) -> Dashboard:
    """With a section a kind that no panel names in the place of a section that has the view `others`."""
    sections: list[Section] = []
    for section in dashboard.sections:
        if any(panel.view == OTHERS for panel in section.panels):
            sections += [_of_kind(run, kind) for kind in _untold(dashboard, run)]
        else:
            sections.append(section)
    return replace(dashboard, sections=tuple(sections))


def _untold(dashboard: Dashboard, run: Run) -> list[str]:
    """A glob that stands for kinds names none."""
    told = {series.partition(".")[0] for panel in dashboard.panels for series in panel.series}
    return [kind for kind in sorted(run.kinds) if kind not in told]


def _of_kind(run: Run, kind: str) -> Section:
    about = kind_of(kind)
    measured = [n for n, v in run.kinds[kind].values.items() if n != "nonfinite" and np.isfinite(v).any()]
    panels = tuple(Panel(series=(f"{kind}.{name}",)) for name in measured[:MOST])
    return Section(about.title, about.note, panels)


def _part(run: Run, panel: Panel) -> Iterator[Part]:
    view = panel.view or _fitting(run, panel)
    if view not in VIEWS:
        yield Part(panel, template=f"views/{view}.html")
        return
    drawings = tuple(VIEWS[view].draw(run, panel))
    if drawings:
        yield Part(panel, drawings)


def _fitting(run: Run, panel: Panel) -> str:
    most = max((len(run.table(name).sites) for name in panel.matching(run.series)), default=0)
    return "map" if most > LINES else "lines"
