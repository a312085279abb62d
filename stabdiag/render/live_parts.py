"""The parts of a live view: what the run is about, its series, its findings, its layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from rich.text import Text

from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.curve import Curve, curve
from stabdiag.render.dashboard import Dashboard, Panel
from stabdiag.render.look import Look, State
from stabdiag.render.numbers import count, duration, number
from stabdiag.render.sparkline import sparkline
from stabdiag.render.terminal import speakable
from stabdiag.render.text import SEVERITY_STYLE, VERDICT_STYLE
from stabdiag.render.worst import HISTORY, Standing, worst

ALWAYS = ("run.loss", "run.grad_norm")
"""Shown whatever the dashboard says, where they were recorded."""

TIMELINE = "timeline"
WHOLE = "run.step_time"
"""Stands for the times that it is made up of."""

LAYERS = ("layers", "heatmap", "map")
"""Views of all sites: what is told of them is which are furthest from what is usual for them."""

VALUE = 9
"""Characters of a number."""

WAITING = "nothing is recorded yet; Ctrl-C leaves, and the training goes on"

MOST = 40
LONGEST = 400
"""Characters of a name or message that are looked at: more has no room in a line."""

SILENT = 60.0
"""Seconds without a step after which it is told; slow steps have ten times their duration."""

SHOWN = 3
"""Layers that are shown however near they are to what is usual; others only beyond FAR."""

FAR = 0.4
"""Distance of logarithms: a factor of one and a half."""


def said(text: str, encoding: str) -> str:
    return speakable(text[:LONGEST], encoding)


class Parts:
    """Draws one look for a terminal of `width` cells."""

    def __init__(self, look: Look, width: int, encoding: str) -> None:
        self._look = look
        self._width = width
        self._encoding = encoding
        self._says_unicode = speakable("▁×…", encoding) == "▁×…"
        self.overflow: Literal["ellipsis", "crop"] = "ellipsis" if self._says_unicode else "crop"

    def _said(self, text: str) -> str:
        return said(text, self._encoding)

    def _cell(self, text: str, room: int, style: str = "") -> Text:
        """`text` in just `room` cells."""
        cell = Text(self._said(text), style=style)
        cell.truncate(room, overflow=self.overflow, pad=True)
        return cell

    def head(self) -> list[Text]:
        """Two lines: which run, how it is; how far it is, how fast, and what is left."""
        look = self._look
        verdict = look.diagnosis.verdict if look.diagnosis and look.run.steps else ""
        word = describe.VERDICT_WORDS.get(verdict, "")
        state, facts = look.state.value, self._facts()
        if look.diagnosis and look.state is State.ended:
            state = describe.ending(look.run, look.diagnosis) or state
            facts = describe.run_facts(look.run, look.diagnosis)
        first = Text.assemble(
            (self._said(look.name), "bold"),
            ("  " + word if word else "", VERDICT_STYLE.get(verdict, "")),
            "  " + self._said(state),
        )
        return [first, Text(self._said(", ".join(filter(None, facts)) or WAITING))]

    def _facts(self) -> list[str]:
        told = self._look.progress
        if not self._look.run.steps:
            return []
        step = f"step {count(self._look.run.steps - 1)}"
        if self._look.state is State.gone:
            return [step]
        silent = told.since is not None and told.since > max(SILENT, 10 / (told.pace or 1))
        stalled = f"no step for {duration(told.since or 0)}" if silent else ""
        return [step, stalled, told.pace_words, told.ending_words, told.amounts_words]

    def series(self, dashboard: Dashboard) -> list[Text]:
        """A line a series: of the run itself first, then of the site that says most."""
        run = self._look.run
        wanted = {name: Panel(series=(name,)) for name in ALWAYS if name in run}
        for panel in dashboard.panels:
            wanted |= {name: panel for name in _telling(run, panel) if name not in wanted}
        ranked = sorted(wanted, key=lambda name: not name.startswith("run."))
        rows = [row for name in ranked for row in _row(run, name, wanted[name])]
        label = min(max((len(name) for name, _ in rows), default=0), max(self._width // 4, 8))
        return [self._drawn(name, found, label) for name, found in rows[:MOST]]

    def _drawn(self, name: str, found: Curve, label: int) -> Text:
        room = max(self._width - label - VALUE - 4, 4)
        drawn = sparkline(found, room, ascii_only=not self._says_unicode)
        last = float(found.values[-1])
        value = (f"{number(last):>{VALUE}}", "bold" if np.isfinite(last) else "bold red")
        return Text.assemble(self._cell(name, label, "dim"), "  ", value, "  ", drawn)

    def layers(self, dashboard: Dashboard) -> list[Text]:
        """A line a layer, the furthest from what is usual for it first; none where there is no history."""
        panels = [panel for panel in dashboard.panels if panel.view == LAYERS[0]]
        panels = panels or [panel for panel in dashboard.panels if panel.view in LAYERS]
        names = dict.fromkeys(name for panel in panels for name in panel.matching(self._look.run.series))
        found = worst(self._look.run, names, MOST)
        told = [one for i, one in enumerate(found) if i < SHOWN or one.distance > FAR]
        room = min(max((len(one.site) for one in told), default=0), self._width // 2)
        lines = [self._layer(one, room) for one in told]
        return [Text("Worst layers now", style="bold"), *lines] if lines else []

    def _layer(self, one: Standing, room: int) -> Text:
        style = "" if one.distance < 1 else "yellow" if one.distance < 3 else "red"
        series = (self._said(f"  {one.series:<12}  "), "dim")
        return Text.assemble("  ", self._cell(one.site, room), series, (self._said(one.words), style))

    def findings(self) -> list[Text]:
        found = self._look.diagnosis.findings if self._look.diagnosis else ()
        told = [finding for finding in found if finding.severity > Severity.info]
        told += [finding for finding in found if finding.severity is Severity.info]
        so_far = describe.so_far(self._look.run, self._look.diagnosis) if self._look.diagnosis else ""
        title = f"Findings {so_far}".rstrip()
        if not told:
            return [Text(f"{title}: none", style="dim")]
        return [Text(title, style="bold"), *map(self._finding, told[:MOST])]

    def _finding(self, finding: Finding) -> Text:
        severity, place = str(finding.severity), describe.place(finding)
        told = f"{finding.signature} since step {count(finding.onset_step)}"
        told += f" at {place[:LONGEST]}: " if place else ": "
        return Text.assemble(
            (f"  {severity:8} ", SEVERITY_STYLE[severity]), self._said(told + finding.message)
        )


def _telling(run: Run, panel: Panel) -> tuple[str, ...]:
    """The series of a panel that are worth a line: the first, all of a timeline, the whole of parts."""
    found = tuple(name for name in panel.matching(run.series) if not name.endswith(".fingerprint"))
    if panel.view in LAYERS:
        return ()
    if panel.view == TIMELINE:
        return found
    return tuple(name for name in found if name == WHOLE) or found[:1]


def _row(run: Run, name: str, panel: Panel) -> Iterator[tuple[str, Curve]]:
    """The series at the site with its highest last value, or the lowest if that is what the panel wishes."""
    table = run.table(name)
    columns = [index for index, site in enumerate(table.names) if panel.shows(site)]
    last = table.values[-HISTORY:, columns]
    seen = np.flatnonzero((~np.isnan(last)).any(axis=1))
    if not columns:
        return
    pick = np.nanargmin if panel.lowest else np.nanargmax
    at = columns[int(pick(last[seen[-1]]))] if len(seen) else columns[0]
    found = curve(run, name, table.names[at])
    if len(found.finite) > 1 or (name in ALWAYS and len(found.values)):
        where = "" if len(table.names) == 1 or table.names[at] == "run" else f" {table.names[at]}"
        yield f"{name.removeprefix('run.')}{where}", found
