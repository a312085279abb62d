"""Collecting evidence for and against a cause into one weight."""

from __future__ import annotations

import math

from stabdiag.analysis.catalogue import Weight


class Case:
    """Arguments for and against, each with a strength in 0..1.

    Arguments for are combined as independent ones, 1 - Π(1 - s); each argument against then leaves
    the share 1 - s of what there is. Arguments of strength 0 are not told.
    """

    def __init__(self) -> None:
        self._for: list[tuple[float, str]] = []
        self._against: list[tuple[float, str]] = []

    def speaks_for(self, strength: float, text: str) -> None:
        if strength > 0:
            self._for.append((min(strength, 1.0), text))

    def speaks_against(self, strength: float, text: str) -> None:
        if strength > 0:
            self._against.append((min(strength, 1.0), text))

    def weight(self) -> Weight | None:
        """None where nothing speaks for the cause."""
        if not self._for:
            return None
        doubt = math.prod(1.0 - strength for strength, _ in self._for)
        left = math.prod(1.0 - strength for strength, _ in self._against)
        told = "; ".join(text for _, text in sorted(self._for, key=lambda argument: -argument[0]))
        if self._against:
            told += "; but " + " and ".join(text for _, text in self._against)
        return Weight((1.0 - doubt) * left, told)


def ramp(value: float, low: float, high: float) -> float:
    """0 at `low` and below, 1 at `high` and above, linear in the logarithm between; falls where
    high < low. All positive; NaN gives 0."""
    if value <= 0 or math.isnan(value):
        return 1.0 if high < low and value <= 0 else 0.0
    if math.isinf(value):
        return 1.0 if high > low else 0.0
    position = math.log(value / low) / math.log(high / low)
    return min(max(position, 0.0), 1.0)


def figure(value: float) -> str:
    """Three significant digits, as a person writes them: 0.0031, 31, 4,100, 3e-07, 2.1e+08."""
    if not math.isfinite(value):
        return "non-finite"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"
    return f"{value:.2g}"
