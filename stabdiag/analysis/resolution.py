"""How finely the recording tells when something began."""

from __future__ import annotations

import numpy as np

from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

AROUND = 8
"""Records on either side of an onset that tell how often its series was taken there."""


def slack(run: Run, *findings: Finding) -> int:
    """Steps by which the onsets of `findings` may seem swapped: twice the coarsest interval at which
    what they speak of was recorded, at least 2."""
    return max(2, *(2 * _interval(run, finding) for finding in findings))


def _interval(run: Run, finding: Finding) -> int:
    """The median distance between the records around the onset, of the coarsest series in evidence."""
    series = dict.fromkeys(evidence.series for evidence in finding.evidence)
    return max((_local(run, name, finding.onset_step) for name in series if name in run), default=1)


def _local(run: Run, series: str, step: int) -> int:
    table = run.table(series)
    at = int(np.searchsorted(table.steps, step))
    rows = slice(max(at - AROUND, 0), at + AROUND)
    taken = table.steps[rows][~np.isnan(table.values[rows]).all(axis=1)]
    return round(float(np.median(np.diff(taken)))) if len(taken) > 1 else 1
