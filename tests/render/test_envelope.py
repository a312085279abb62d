"""The extremes of stretches, against a slow and obvious way; read in blocks of a few rows."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.core.synthetic import run_of
from stabdiag.render import envelope as module
from stabdiag.render.envelope import envelope, last_measured, last_values

NAN = float("nan")


@pytest.fixture(params=[3, 40, 1_000_000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", request.param)


def _gappy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values [70, 3] with rows in which nothing was measured, infinities and NaN that were."""
    values = rng.normal(size=(70, 3)).astype(np.float32)
    nonfinite = np.zeros((70, 3), np.float32)
    values[rng.random((70, 3)) < 0.1] = np.inf
    broken = rng.random((70, 3)) < 0.1
    values[broken], nonfinite[broken] = NAN, 1
    unseen = rng.random(70) < 0.4
    values[unseen], nonfinite[unseen] = NAN, NAN
    return values, nonfinite


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("columns", [1, 7, 500])
def test_no_spike_and_no_nonfinite_value_is_lost(columns: int) -> None:
    rng = np.random.default_rng(columns)
    for _ in range(20):
        values, nonfinite = _gappy(rng)
        found = envelope(run_of({"grad.norm": values, "grad.nonfinite": nonfinite}), "grad.norm", columns)
        rows = np.flatnonzero(~np.isnan(nonfinite).all(axis=1))
        assert len(found.steps) == min(columns, len(rows))
        assert found.steps[0] == rows[0]
        ends = [*found.steps[1:], 70]
        for i, (begin, end) in enumerate(zip(found.steps, ends, strict=True)):
            part = values[begin:end]
            finite = np.where(np.isfinite(part), part, np.nan)
            assert np.array_equal(found.low[i], np.fmin.reduce(finite), equal_nan=True)
            assert np.array_equal(found.high[i], np.fmax.reduce(finite), equal_nan=True)
            wrong = np.isinf(part) | (nonfinite[begin:end] > 0)
            assert np.array_equal(found.broken[i], wrong.any(axis=0))


@pytest.mark.usefixtures("block")
def test_the_last_value_is_that_of_each_site_whether_or_not_it_is_finite() -> None:
    values = np.full((70, 4), NAN, np.float32)
    nonfinite = np.full((70, 4), NAN, np.float32)
    values[:5, :3], nonfinite[:5] = [1.0, 2.0, 3.0], 0
    values[60, 0], nonfinite[60] = 5.0, [0, 1, 0, 0]
    run = run_of({"grad.norm": values, "grad.nonfinite": nonfinite})
    assert np.array_equal(last_measured(run, "grad.norm"), np.float32([5, NAN, 3, NAN]), equal_nan=True)
    assert np.array_equal(last_values(values), [5, 2, 3, NAN], equal_nan=True)


def test_of_nothing_there_is_nothing() -> None:
    run = run_of({"grad.norm": np.full((4, 2), NAN), "weight.norm": np.zeros((0, 2))})
    for series in ("grad.norm", "weight.norm"):
        assert envelope(run, series, 5).low.shape == (0, 2)
        assert np.isnan(last_measured(run, series)).all()
        assert np.isnan(last_values(run.table(series).values)).all()
