"""A curve over several lines of text, with its threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.render.curve import Curve, curves
from stabdiag.render.numbers import count, number

HEIGHT = 6
# Braille cells are two dots wide and four high; these are the bits of a cell's dots, by row and column.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def sketch(run: Run, finding: Finding, width: int = 60, *, ascii_only: bool = False) -> list[str]:
    """The first evidence of `finding`: the curve in dots, the threshold as a line, the onset as a mark.

    Nothing where the run does not hold that evidence.
    """
    evidence = finding.evidence[0] if finding.evidence else None
    found = curves(run, evidence.series, evidence.sites, 1) if evidence else []
    if not evidence or not found or not len(found[0].finite):
        return []
    curve, threshold = found[0], evidence.threshold
    levels = [*curve.finite, *([] if threshold is None else [threshold])]
    log = evidence.log and min(levels) > 0
    low, high = _range(levels, log=log)
    rows = 4 * HEIGHT
    cells = _drawn(curve, width, low, high, log=log, ascii_only=ascii_only)
    if threshold is not None:
        line = (rows - 1 - _place(np.array([threshold]), low, high, rows, log=log)[0]) // 4
        blank = " " if ascii_only else "⠀"
        cells[line] = cells[line].replace(blank, "-" if ascii_only else "╌")
    labels = [number(high), *[""] * (HEIGHT - 2), number(low)]
    margin = max(map(len, labels))
    bar = "|" if ascii_only else "│"
    drawn = [f"{label:>{margin}} {bar}{cell}" for label, cell in zip(labels, cells, strict=True)]
    return [
        *drawn,
        _axis(curve, finding, width, margin, ascii_only=ascii_only),
        _caption(curve, finding, evidence.series),
    ]


def _range(levels: list[float], *, log: bool) -> tuple[float, float]:
    low, high = float(min(levels)), float(max(levels))
    if low < high:
        return low, high
    return (low / 2, high * 2) if log else (low - 1, high + 1)


def _place(
    values: NDArray[np.float64], low: float, high: float, rows: int, *, log: bool
) -> NDArray[np.int64]:
    """Height of each value among `rows`, from 0 at `low`."""
    if log:
        values, low, high = np.log(values), float(np.log(low)), float(np.log(high))
    return np.round((values - low) / (high - low) * (rows - 1)).astype(np.int64)


def _drawn(curve: Curve, width: int, low: float, high: float, *, log: bool, ascii_only: bool) -> list[str]:
    across, rows = (1 if ascii_only else 2), (1 if ascii_only else 4)
    seen = np.isfinite(curve.values)
    steps, values = curve.steps[seen], curve.values[seen]
    first, last = int(curve.steps[0]), max(int(curve.steps[-1]), int(curve.steps[0]) + 1)
    columns = (steps - first) * (width * across - 1) // (last - first)
    heights = rows * HEIGHT - 1 - _place(values, low, high, rows * HEIGHT, log=log)
    if ascii_only:
        marks = np.full((HEIGHT, width), " ")
        marks[heights, columns] = "*"
        return ["".join(row) for row in marks]
    bits = np.zeros((HEIGHT, width), dtype=np.int64)
    np.bitwise_or.at(bits, (heights // 4, columns // 2), DOTS[heights % 4, columns % 2])
    return ["".join(chr(0x2800 + bit) for bit in row) for row in bits]


def _axis(curve: Curve, finding: Finding, width: int, margin: int, *, ascii_only: bool) -> str:
    first, last = int(curve.steps[0]), int(curve.steps[-1])
    share = (finding.onset_step - first) / max(last - first, 1)
    line = [*("-" if ascii_only else "─") * width]
    line[min(max(round(share * (width - 1)), 0), width - 1)] = "^" if ascii_only else "▲"
    return f"{'':{margin}} {'+' if ascii_only else '└'}{''.join(line)}"


def _caption(curve: Curve, finding: Finding, series: str) -> str:
    where = "" if curve.name == "run" else f" of {curve.name}"
    mark = f"onset at step {count(finding.onset_step)}"
    limit = finding.evidence[0].threshold
    line = "" if limit is None else f", threshold {number(limit)}"
    return (
        f"{series}{where}, steps {count(int(curve.steps[0]))} to {count(int(curve.steps[-1]))}: {mark}{line}"
    )
