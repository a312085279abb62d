"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Four significant digits: `2,134`, `0.0312`, `3.1e-07`; non-finite values by their name."""
    if value is None:
        return "-"
    value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.3g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def count(amount: int, noun: str = "", plural: str = "") -> str:
    """`2,000 steps`, `1 step`."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}" if noun else f"{amount:,}"


def fingerprint(of: int) -> str:
    """`5eca8f`: six digits, as the fingerprints of batches are told everywhere."""
    return f"{of:06x}"


def percent(share: float) -> str:
    """`share` in 0..1; a belief below one is never told as a certainty."""
    points = round(share * 100)
    return f"{min(points, 99) if share < 1 else 100} %"


def duration(seconds: float) -> str:
    """`0.42 s`, `1 min 5 s`, `3 h 12 min`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def size(amount: int) -> str:
    """Bytes in the largest decimal unit: `2.4 MB`."""
    value = float(amount)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
