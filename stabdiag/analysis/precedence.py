"""Which of several findings comes first: by time, then by the way that a fault travels."""

from __future__ import annotations

from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

Precedence = tuple[int, float, int, str, tuple[str, ...], int, int, str]

BACKWARD = {"output_grad": 2e9, "grad": 2e9, "update": 4e9}
"""Kinds in which a fault travels from the loss to the input, so that the later layer is upstream; and where
their places begin: after those of all outputs, and updates after all gradients."""


def precedence(run: Run, finding: Finding) -> Precedence:
    """Sorts the likeliest root first; no two findings that differ are alike."""
    return (
        finding.onset_step,
        _depth(run, finding),
        -finding.severity,
        finding.signature,
        finding.sites,
        finding.peak_step,
        finding.last_step,
        finding.message,
    )


def _depth(run: Run, finding: Finding) -> float:
    """Place of the first site along the way that the fault travels, small upstream.

    Findings that have no place in the model (the loss, the learning rate) come last: they see a
    consequence.
    """
    kinds = [e.series.partition(".")[0] for e in finding.evidence] or list(run.kinds)
    for kind in kinds:
        for site in run.sites(kind):
            if finding.sites and site.name == finding.sites[0] and site.order >= 0 and kind != "run":
                return BACKWARD[kind] - site.order if kind in BACKWARD else float(site.order)
    return float("inf")
