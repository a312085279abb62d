"""One self-contained page of two runs; what it says is HTML, and the script in it only adds to that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stabdiag.core.comparison import Comparison
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render import numbers, untrusted
from stabdiag.render.comparison import words
from stabdiag.render.comparison.heat import Difference, differences
from stabdiag.render.comparison.overlay import overlays, spark
from stabdiag.render.curve import Curve
from stabdiag.render.document import embedded, environment, source, write_document
from stabdiag.render.layers import Layer, Trend, layers, unique_slugs
from stabdiag.render.policy import policy

FIRST = 'document.documentElement.classList.add("js")'
"""What runs before anything is shown."""

NOTHING = Diagnosis("", (), (), (), {})
UNFOLDED = 10
"""Layers up to which their table is open from the start."""
LABELLED = 70
"""Rows of a map up to which each has its name beside it."""


def page_name(a: Run) -> str:
    """A plain file name, after the name of `a`."""
    name = re.sub(r"[^\w.-]+", "-", a.path.name if a.path else "run").strip(".-")[:80] or "run"
    return f"compare-{name}.html"


def write_page(a: Run, b: Run, told: Comparison, path: Path) -> None:
    """Raises StabdiagError where `path` cannot be written."""
    write_document(render_page(a, b, told), path)


def render_page(a: Run, b: Run, told: Comparison) -> str:
    """Equal bytes for equal runs."""
    pairs = _pairs(a, b)
    slugs = {pair.name: pair.slug for pair in pairs}
    maps = list(differences(a, b)) if told.first_bit else []
    labels = {m.series: _labels(m) for m in maps}
    marked = told.first.step if told.first and told.verdict == "part" else None
    sheets = source("style.css"), source("comparison.css"), _placed(maps, labels.values(), marked)
    style, script = "".join(sheets), source("comparison.js")
    return _template().render(
        style=Markup(style),
        scripts=[Markup(FIRST), Markup(script)],
        policy=Markup(policy(style, (FIRST, script))),
        told=told,
        words=words,
        partings=[p for p in (told.first, *told.followed) if p is not None],
        last=min(told.steps) - 1,
        overlays=overlays(a, b, told),
        maps=maps,
        pictures={m.series: Markup(m.address) for m in maps},
        labels=labels,
        data=embedded({m.series: _described(m, slugs) for m in maps}),
        layers=pairs,
        unfolded=UNFOLDED,
        shown=told.first.series if told.first else "",
        marked=marked,
    )


@dataclass(frozen=True)
class PairedLayer:
    """A module as each run has it; None where it has none of that name."""

    name: str
    slug: str
    a: Layer | None
    b: Layer | None

    @property
    def module_type(self) -> str:
        types = dict.fromkeys(layer.module_type for layer in (self.a, self.b) if layer)
        return ", ".join(filter(None, types))

    @property
    def measures(self) -> list[tuple[Markup, str]]:
        """Of outputs, gradients and updates: both curves, and the last value of b over that of a."""
        return [_measure(self.a, self.b, of) for of in ("output", "gradient", "update")]


def _measure(a: Layer | None, b: Layer | None, of: str) -> tuple[Markup, str]:
    trends: list[Trend | None] = [getattr(layer, of) if layer else None for layer in (a, b)]
    first, second = (trend.curve if trend else None for trend in trends)
    return spark(first, second), _ratio(first, second)


def _ratio(a: Curve | None, b: Curve | None) -> str:
    """`× 1.32`, by the medians of the last fifth: one record of noise tells little."""
    ends = [c.finite[-max(len(c.finite) // 5, 1) :] for c in (a, b) if c is not None and len(c.finite)]
    if len(ends) < 2:
        return ""
    before, after = (sorted(end)[len(end) // 2] for end in ends)
    return f"× {after / before:.3g}" if before else ""


def _pairs(a: Run, b: Run) -> list[PairedLayer]:
    """In the forward order of a; what only b has follows."""
    found = [{layer.name: layer for layer in layers(run, NOTHING)} for run in (a, b)]
    names = list(dict.fromkeys([*found[0], *found[1]]))
    slugs = unique_slugs(names)
    return [PairedLayer(name, slugs[name], found[0].get(name), found[1].get(name)) for name in names]


Labels = list[tuple[int, str]]


def _placed(maps: Sequence[Difference], labels: Iterable[Labels], marked: int | None) -> str:
    """Where the names and the marks of maps are: the page's policy allows no styles within its elements."""
    rows = sorted({row for named in labels for row, _ in named})
    rules = [f".row-{row} {{ --row: {row}; }}" for row in rows]
    for number, one in enumerate(maps):
        at = 0.0 if marked is None else one.steps.searchsorted(marked) / len(one.steps)
        rules.append(f"#apart-{number} {{ --rows: {len(one.names)}; --at: {at:.6f}; }}")
    return "\n".join(rules) + "\n"


def _labels(difference: Difference) -> Labels:
    """Rows that have their name beside the map."""
    every = -(-len(difference.names) // LABELLED)
    return [(row, name) for row, name in enumerate(difference.names) if row % every == 0]


def _described(difference: Difference, slugs: dict[str, str]) -> dict[str, Any]:
    """What the script needs to tell of a cell."""
    owners = ((name, slugs.get(name, slugs.get(_owner(name, slugs), ""))) for name in difference.names)
    rows = [[untrusted.name(name), slug] for name, slug in owners]
    return {"rows": rows, "steps": difference.steps.tolist(), "columns": len(difference.steps)}


def _owner(name: str, slugs: dict[str, str]) -> str:
    """The module of a parameter, a head or an expert."""
    part = name.partition("[")[0]
    return part if part in slugs else part.rpartition(".")[0]


@cache
def _template() -> jinja2.Template:
    return environment(count=numbers.count, name=untrusted.name).get_template("comparison.html")
