"""One word for the run: stable, at-risk, unstable or failed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run

POLITE_SIGNALS = ("SIGINT", "SIGTERM")
"""Somebody asked the run to stop, which says nothing of its health."""

POLITE_STATUSES = (130, 143)
"""The same two signals as a shell passes them on."""


def verdict_of(run: Run, findings: Sequence[Finding]) -> str:
    if crashed(run) or ended_nonfinite(run) or _diverged(findings):
        return "failed"
    worst = max((finding.severity for finding in findings), default=Severity.info)
    return {Severity.critical: "unstable", Severity.warning: "at-risk", Severity.info: "stable"}[worst]


def crashed(run: Run) -> bool:
    """Whether the run ended by an error of its own or a signal nobody sends politely."""
    if run.info.signal:
        return run.info.signal not in POLITE_SIGNALS
    return (run.info.exit_status or 0) not in (0, *POLITE_STATUSES)


def ended_nonfinite(run: Run) -> bool:
    """Whether the loss or any parameter was still non-finite when last measured."""
    return any(_last_count(run, series) > 0 for series in ("run.nonfinite", "weight.nonfinite"))


def _last_count(run: Run, series: str) -> float:
    """The largest value of the last step at which the series was measured, 0 where it never was."""
    if series not in run:
        return 0.0
    values = run.table(series).values
    measured = np.flatnonzero(~np.isnan(values).all(axis=1))
    return float(np.nanmax(values[measured[-1]])) if len(measured) else 0.0


def _diverged(findings: Sequence[Finding]) -> bool:
    return any(f.signature == "loss-divergence" and f.severity is Severity.critical for f in findings)
