from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.synthetic import run_of
from stabdiag.render.curve import curves
from stabdiag.render.sketch import HEIGHT, sketch

BLANK = "⠀"


def finding(onset: int, evidence: Evidence) -> Finding:
    return Finding(Severity.warning, 1.0, ("run",), onset, onset, onset, "it did", evidence=(evidence,))


def cells(lines: list[str]) -> list[str]:
    return [line.partition("│")[2] for line in lines[:HEIGHT]]


def test_a_line_that_rises_is_drawn_from_the_lower_left_to_the_upper_right() -> None:
    drawn = sketch(run_of({"run.loss": np.arange(100.0)}), finding(50, Evidence("run.loss")), 30)
    columns = [[i for i, mark in enumerate(row) if mark != BLANK] for row in cells(drawn)]
    assert [max(row) for row in columns] == sorted((max(row) for row in columns), reverse=True)
    assert cells(drawn)[0][-1] != BLANK
    assert cells(drawn)[-1][0] != BLANK
    assert drawn[HEIGHT].index("▲") == pytest.approx(len(drawn[HEIGHT]) - 15, abs=1)


def test_the_threshold_stands_at_its_height_and_belongs_to_the_range() -> None:
    flat = run_of({"run.loss": np.ones(100)})
    drawn = sketch(flat, finding(0, Evidence("run.loss", threshold=3.0)), 30)
    assert cells(drawn)[0] == "╌" * 30
    assert drawn[0].startswith("3 ")


def test_decades_are_drawn_evenly_where_the_evidence_is_logarithmic() -> None:
    steep = run_of({"run.loss": 10.0 ** np.linspace(0, 6, 100)})
    linear, log = (sketch(steep, finding(0, Evidence("run.loss", log=log)), 60) for log in (False, True))
    assert sum(mark != BLANK for mark in cells(log)[2]) > 3 * sum(mark != BLANK for mark in cells(linear)[2])


def test_a_run_without_the_evidence_has_no_picture() -> None:
    assert sketch(run_of({"run.loss": np.ones(5)}), finding(0, Evidence("grad.norm"))) == []
    assert sketch(run_of({"run.loss": np.full(5, np.nan)}), finding(0, Evidence("run.loss"))) == []


@pytest.mark.parametrize("name", [entry.id for entry in SIGNATURES])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_every_signature_can_be_drawn(name: str, ascii_only: bool) -> None:
    """Gradients that never came have no picture."""
    run = SIGNATURES[name].fires[0](np.random.default_rng(0))
    found = next(iter(SIGNATURES[name](run)))
    lines = sketch(run, found, 60, ascii_only=ascii_only)
    shown = [curve for e in found.evidence[:1] for curve in curves(run, e.series, e.sites, 1)]
    assert len(lines) == (HEIGHT + 2 if any(len(curve.finite) for curve in shown) else 0)
    assert not ascii_only or all(line.isascii() for line in lines)
