"""Data that come in an order are known by the targets of their batches."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.catalogue import FIXES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.event import Event
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


def run(own: float, loss: float = 0.3, classes: int | None = 6, known: int = 40, noise: float = 0.02) -> Run:
    """Of all labels five in six pairs differ, of a batch the share `own`, known at `known` of 400 steps."""
    scatter = np.random.default_rng(0).standard_normal(400)
    falling = loss + 1.5 * np.exp(-np.arange(400) / 30) + 0.02 * scatter
    at = np.linspace(0, 399, known).astype(int)
    series = {
        "run.loss": falling,
        "targets.loss": falling[at],
        "targets.constant": np.full(known, 1.79),
        "targets.variety": own + noise * scatter[at],
        "targets.variety_seen": np.full(known, 0.83),
    }
    kind = {"function": "cross-entropy"} | ({"classes": classes} if classes else {})
    sites = {"targets": [Site("targets", "cross-entropy")]}
    return run_of(series, sites=sites, steps={"targets": at}, events=[Event("loss", 0.0, data=kind)])


def told(of: Run) -> list[str]:
    found = diagnose(of).findings
    return [f.severity.name for f in found if f.signature == "distribution-shift-or-resume"]


@pytest.mark.parametrize(
    ("of", "severities"),
    [
        (run(0.1), ["warning"]),
        (run(0.3), ["info"]),
        (run(0.3, loss=1.6), ["warning"]),
        (run(0.1, classes=None), ["info"]),
        (run(0.6), []),
        (run(0.3, noise=4.0), []),
        (run(0.1, known=8), []),
    ],
    ids=[
        "pure",
        "half mixed",
        "half mixed and stuck",
        "values, learned",
        "mixed",
        "not certain",
        "too few batches",
    ],
)
def test_they_are_told_by_how_pure_a_batch_is_and_what_it_costs(of, severities):
    assert told(of) == severities


def test_the_cause_is_the_order_and_the_cure_to_shuffle():
    (finding,) = [f for f in diagnose(run(0.1)).findings if f.severity.name == "warning"]
    assert finding.causes[0].id == "sorted-data"
    assert "the targets of one batch vary by" in FIXES["reshuffle-data"].propose(run(0.1), finding).text
