"""The confusion matrix as a picture: what was planted downwards, what was told first across."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import escape

from stabdiag.zoo.score import CONTROL, NOTHING

CELL, LABEL, MARGIN = 16, 210, 8
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}"
    ".n{font-size:9px;text-anchor:middle}.hit{fill:#2c7a4b}.miss{fill:#b3412e}.grid{fill:none;stroke:#ddd}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}}"
)


def confusion_svg(counts: Mapping[tuple[str, str], int]) -> str:
    """An SVG with one square a pair that occurred, the darker the larger its share of the row."""
    planted = _ordered({row for row, _ in counts}, CONTROL)
    said = _ordered({column for _, column in counts}, NOTHING)
    width = LABEL + CELL * len(said) + MARGIN
    height = LABEL + CELL * len(planted) + MARGIN
    across, down = CELL * len(said), CELL * len(planted)
    parts = [f'<rect class="grid" x="{LABEL}" y="{LABEL}" width="{across}" height="{down}"/>']
    for column, name in enumerate(said):
        x = LABEL + CELL * column + CELL * 0.7
        parts.append(f'<text transform="translate({x:.1f} {LABEL - 6}) rotate(-90)">{escape(name)}</text>')
    for row, name in enumerate(planted):
        y = LABEL + CELL * row
        parts.append(
            f'<text x="{LABEL - 6}" y="{y + CELL * 0.75:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        total = sum(count for (own, _), count in counts.items() if own == name)
        for column, answer in enumerate(said):
            if count := counts.get((name, answer), 0):
                parts.append(_cell(LABEL + CELL * column, y, count, count / total, _right(name, answer)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Confusion matrix: planted faults by what was told first"><style>{STYLE}</style>'
        f"{''.join(parts)}</svg>\n"
    )


def _right(planted: str, said: str) -> bool:
    return said == (NOTHING if planted == CONTROL else planted)


def _cell(x: float, y: float, count: int, share: float, right: bool) -> str:
    return (
        f'<rect class="{"hit" if right else "miss"}" x="{x}" y="{y}" width="{CELL}" height="{CELL}" '
        f'fill-opacity="{0.15 + 0.6 * share:.2f}"/>'
        f'<text class="n" x="{x + CELL / 2}" y="{y + CELL * 0.7:.1f}">{count}</text>'
    )


def _ordered(names: set[str], last: str) -> list[str]:
    return sorted(names, key=lambda name: (name.startswith("("), name != last, name))
