"""A run that goes on, as a frame of text that fits a terminal, or as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from stabdiag.core.finding import Finding
from stabdiag.render.curve import curve
from stabdiag.render.dashboard import Dashboard
from stabdiag.render.live_parts import ALWAYS, Parts, said
from stabdiag.render.look import Look
from stabdiag.render.numbers import count, number

ROOMY = 16
"""Lines of a terminal that has some to spare."""


@dataclass
class Block:
    """Lines that belong together, of which the first `least` come before those of other blocks."""

    lines: list[Text]
    least: int
    given: int = 0


def frame(look: Look, dashboard: Dashboard, width: int, height: int, encoding: str = "utf-8") -> list[Text]:
    """At most `height` lines of at most `width` cells, without control characters of the run's own."""
    parts = Parts(look, width, encoding)
    blocks = [Block(parts.head(), 2)]
    if look.run.steps:
        series, layers = parts.series(dashboard), parts.layers(dashboard)
        blocks.append(Block(series, min(len(series), len(ALWAYS))))
        blocks.append(Block(parts.findings(), 2))
        blocks += [Block(layers, 0)] if layers else []
    lines = _fitted(blocks, height)
    for line in lines:
        line.truncate(width, overflow=parts.overflow)
    return lines


def _fitted(blocks: Sequence[Block], height: int) -> list[Text]:
    """First what each block has to show, in their order, then a line each in turn; blank ones between them
    where there is room."""
    gaps = len(blocks) - 1 if height >= ROOMY else 0
    left = height - gaps
    for block in blocks:
        block.given = min(block.least, len(block.lines), left)
        left -= block.given
    while left > 0 and any(block.given < len(block.lines) for block in blocks):
        for block in blocks:
            more = block.given < len(block.lines) and left > 0
            block.given += more
            left -= more
    lines: list[Text] = []
    for block in blocks:
        if lines and gaps:
            lines.append(Text())
        lines += block.lines[: block.given]
    return lines


def line_of(look: Look, encoding: str, finding: Finding | None = None) -> str:
    """Where the run is, or what was found in it, in one line."""
    at = f"step {count(look.run.steps - 1)}" if look.run.steps else look.state.value
    if finding is not None:
        told = f"{finding.signature} since step {count(finding.onset_step)}: {finding.message}"
        return said(f"{at}: {finding.severity}: {told}", encoding)
    values = [
        f"{name.removeprefix('run.')} {number(float(found.values[-1]))}"
        for name in ALWAYS
        if name in look.run and len((found := curve(look.run, name, "run")).values)
    ]
    pace = [look.progress.pace_words, look.progress.ending_words] if look.run.steps else []
    return said(", ".join([at, *values, *pace]), encoding)
