"""The heat maps as the page's script takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render import figures
from stabdiag.render.heatmap import HeatMap, heat_maps
from stabdiag.render.kind import axis_unit
from stabdiag.render.packing import as_text, compressed
from stabdiag.render.untrusted import name

CELLS = (500_000, 250_000, 125_000)
"""Cells of all heat maps together, the first number that packs into so many bytes: beside plotly.js a page
has one megabyte left."""
PACKED = 200_000


def heat_data(
    run: Run, diagnosis: Diagnosis, slugs: Mapping[str, str], selectable: Sequence[str], mapped: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """What the heat map's script needs, and the cells of all maps, compressed, as text."""
    wanted = {*selectable, *mapped}
    series = [one for one in run.series if one in wanted]
    for cells in CELLS:
        maps = heat_maps(run, series, cells)
        raw = compressed(b"".join(m.cells.tobytes() for m in maps))
        if len(raw) <= PACKED:
            break
    names = {m.series for m in maps}
    telling = [
        e.series for f in diagnosis.findings for e in f.evidence if _tells(e.series) and e.series in names
    ]
    # Kinds that have the same sites share one list of them.
    rows = {
        m.series.partition(".")[0]: tuple((name(s.name), slugs.get(s.name, "")) for s in m.sites)
        for m in maps
    }
    shared = list(dict.fromkeys(rows.values()))
    described = [
        {
            "series": m.series,
            "unit": axis_unit(m.series),
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
        "end": run.steps,
        "onsets": [incident.onset_step for incident in diagnosis.incidents],
        "selectable": [one for one in selectable if one in names],
        "first": next(iter(telling), "output.rms" if "output.rms" in names else ""),
    }
    return heat, as_text(raw)


def _kind(drawn: HeatMap) -> str:
    return drawn.series.partition(".")[0]


def _tells(series: str) -> bool:
    """Counts of what is not finite do not: any other series has it in its colours."""
    return not series.endswith(".nonfinite")
