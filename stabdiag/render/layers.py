"""The modules of a run, one row each, with what their sites measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.render.curve import Curve, curve

PARAMETER_KINDS = ("weight", "grad", "update")


@dataclass
class Layer:
    """`output` is the rms of the module's output, `gradient` the norm over its parameters' gradients,
    `update` the largest update ratio among them; `findings` index the diagnosis's."""

    name: str
    slug: str
    order: int
    module_type: str = ""
    source: str = ""
    output: Curve | None = None
    gradient: Curve | None = None
    update: Curve | None = None
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
    found = [_layer(run, name, slugs[name], sites[name]) for name in names]
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
    """The letters and digits of `name`, all else as hyphens; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _layer(run: Run, name: str, slug: str, sites: list[Site]) -> Layer:
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
        _of(run, "output.rms", [name]),
        _of(run, "grad.norm", parameters),
        _of(run, "update.ratio", parameters),
        owned,
    )


def _of(run: Run, series: str, names: Iterable[str]) -> Curve | None:
    """The curves of `names` as one: root of the sum of squares of norms, the largest of anything else."""
    if series not in run:
        return None
    known = run.table(series).names
    found = [c for c in (curve(run, series, name) for name in names if name in known) if len(c.steps)]
    if len(found) < 2:
        return found[0] if found else None
    steps = found[0].steps
    same = [c.values for c in found if np.array_equal(c.steps, steps)]
    joined = np.sqrt(np.square(same).sum(axis=0)) if series.endswith(".norm") else np.max(same, axis=0)
    return Curve(found[0].name, steps, joined)
