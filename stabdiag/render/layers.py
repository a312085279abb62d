"""The modules of a run, one row each, with what their sites measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Floats, Run
from stabdiag.core.site import Site
from stabdiag.render.curve import Curve
from stabdiag.render.envelope import Envelope, Flags, Rows, envelope, last_measured

PARAMETER_KINDS = ("weight", "grad", "update")
LONGEST = 120
"""Letters of an anchor."""
MOST, FEWEST = 24, 10
STRETCHES = 7_000
"""Columns of a sparkline, and of all those of a series together: a page has a megabyte for them."""


@dataclass(frozen=True)
class Trend:
    """The course of a series, as the extremes of stretches of it, and its last value."""

    curve: Curve
    last: float


@dataclass
class Layer:
    """`output` is the rms of the module's output, `gradient` the norm over its parameters' gradients,
    `update` the largest update ratio among them; `findings` index the diagnosis's."""

    name: str
    slug: str
    order: int
    module_type: str = ""
    source: str = ""
    output: Trend | None = None
    gradient: Trend | None = None
    update: Trend | None = None
    parameters: list[Site] = field(default_factory=list)
    findings: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(site.size for site in self.parameters)


def layers(run: Run, diagnosis: Diagnosis) -> list[Layer]:
    """In forward order, those that never ran last."""
    sites: dict[str, list[Site]] = {}
    for kind in ("output", "output_grad", *PARAMETER_KINDS):
        for site in run.sites(kind):
            sites.setdefault(site.module, []).append(site)
    place = {name: (site.order < 0, site.order) for name, (site, *_) in sites.items()}
    names = sorted(sites, key=lambda name: place[name])
    slugs = unique_slugs(names)
    found = [_layer(name, slugs[name], sites[name]) for name in names]
    columns = min(max(STRETCHES // max(len(found), 1), FEWEST), MOST)
    for attribute, series, join in TRENDS:
        courses = _trends(run, series, join, columns)
        for layer in found:
            setattr(layer, attribute, courses.get(layer.name))
    by_site = {site.name: layer for layer in found for site in sites[layer.name]}
    by_site.update({layer.name: layer for layer in found})
    for i, finding in enumerate(diagnosis.findings):
        for name in finding.sites:
            if name in by_site and i not in by_site[name].findings:
                by_site[name].findings.append(i)
    return found


def site_slugs(found: Iterable[Layer], run: Run) -> dict[str, str]:
    """Name of a site -> slug of the layer that it belongs to."""
    slugs = {layer.name: layer.slug for layer in found}
    sites = [(s.name, s.module) for kind in run.kinds for s in run.sites(kind)]
    # A part of a module is named after it: `blocks.0.attn[h3]`.
    owned = {name: slugs.get(module, slugs.get(module.partition("[")[0])) for name, module in sites}
    return {**{name: slug for name, slug in owned.items() if slug}, **slugs}


def unique_slugs(names: Iterable[str]) -> dict[str, str]:
    """Stable anchors: `blocks.3.attn` -> `blocks-3-attn`, numbered where two would be equal."""
    seen: Counter[str] = Counter()
    slugs = {}
    for name in names:
        plain = slug(name) or "model"
        seen[plain] += 1
        slugs[name] = plain if seen[plain] == 1 else f"{plain}--{seen[plain]}"
    return slugs


def slug(name: str) -> str:
    """The letters and digits of the beginning of `name`, all else as hyphens; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", name[:LONGEST].lower()).strip("-")


def _layer(name: str, slug: str, sites: list[Site]) -> Layer:
    modules = [site for site in sites if site.kind not in PARAMETER_KINDS]
    described = (modules or sites)[0]
    parameters = {site.name: site for site in reversed(sites) if site.kind in PARAMETER_KINDS}
    owned = [parameters[key] for key in sorted(parameters)]
    return Layer(
        name,
        slug,
        described.order,
        described.module_type if modules else "",
        described.source,
        parameters=owned,
    )


def _root_of_squares(values: Floats, starts: Rows) -> Floats:
    squares = np.add.reduceat(np.square(np.nan_to_num(values)), starts, axis=1)
    root: Floats = np.where(
        np.logical_or.reduceat(np.isfinite(values), starts, axis=1), np.sqrt(squares), np.nan
    )
    return root


def _largest(values: Floats, starts: Rows) -> Floats:
    largest: Floats = np.fmax.reduceat(values, starts, axis=1)
    return largest


TRENDS = (
    ("output", "output.rms", _largest),
    ("gradient", "grad.norm", _root_of_squares),
    ("update", "update.ratio", _largest),
)


def _trends(run: Run, series: str, join: Callable[[Floats, Rows], Floats], columns: int) -> dict[str, Trend]:
    """Of each module of which anything was measured, its sites taken together."""
    if series not in run or not run.table(series).sites:
        return {}
    modules = [site.module for site in run.table(series).sites]
    order = sorted(range(len(modules)), key=modules.__getitem__)
    begins = [k for k, i in enumerate(order) if k == 0 or modules[i] != modules[order[k - 1]]]
    names, starts = [modules[order[k]] for k in begins], np.array(begins, np.intp)

    def joined(values: Floats, broken: Flags) -> tuple[Floats, Flags]:
        return join(values[:, order], starts), np.logical_or.reduceat(broken[:, order], starts, axis=1)

    drawn, last = envelope(run, series, columns, joined), last_measured(run, series, joined)
    found = ((name, _course(drawn, i, name)) for i, name in enumerate(names))
    return {
        name: Trend(course, float(value))
        for (name, course), value in zip(found, last, strict=True)
        if len(course.steps)
    }


def _course(drawn: Envelope, place: int, name: str) -> Curve:
    """The lowest and the highest value of each stretch; once where they are one, NaN where one is broken."""
    low, high, broken = (array[:, place] for array in (drawn.low, drawn.high, drawn.broken))
    values = np.stack([low, np.where(low == high, np.nan, high), np.full(len(low), np.nan)], axis=1)
    kept = np.isfinite(values)
    kept[:, 2] = broken
    steps = np.repeat(drawn.steps, 3)[kept.ravel()]
    return Curve(name, steps, values.ravel()[kept.ravel()].astype(np.float64))
