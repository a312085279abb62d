from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stabdiag.render.downsample import downsample, spans_decades

curves = arrays(np.float64, st.integers(0, 400), elements=st.floats(width=32))
limits = st.integers(5, 60)


@settings(max_examples=200, deadline=None)
@given(curves, limits)
def test_points_are_fewer_in_order_and_from_end_to_end(values: np.ndarray, limit: int) -> None:
    kept = downsample(values, limit)
    assert len(kept) <= limit
    assert (np.diff(kept) > 0).all()
    if len(values):
        assert kept[0] == 0
        assert kept[-1] == len(values) - 1
    if len(values) <= limit:
        assert len(kept) == len(values)


@settings(max_examples=200, deadline=None)
@given(curves, limits)
def test_the_extremes_stay(values: np.ndarray, limit: int) -> None:
    finite = values[np.isfinite(values)]
    shown = values[downsample(values, limit)]
    if len(finite):
        assert np.nanmin(shown[np.isfinite(shown)]) == finite.min()
        assert np.nanmax(shown[np.isfinite(shown)]) == finite.max()


@settings(max_examples=200, deadline=None)
@given(curves, limits)
def test_every_nonfinite_value_has_one_of_its_stretch_shown(values: np.ndarray, limit: int) -> None:
    kept = downsample(values, limit)
    shown = kept[~np.isfinite(values[kept])]
    stretch = -(-len(values) // ((limit - 2) // 3))
    for at in np.flatnonzero(~np.isfinite(values)):
        assert np.abs(shown - at).min() < stretch


def test_one_spike_and_one_nan_in_a_long_run_stay() -> None:
    values = np.ones(200_000)
    values[123_456] = 9.0
    values[77_777] = np.nan
    assert {123_456, 77_777} <= set(downsample(values, 1000))


def test_only_positive_values_over_two_decades_ask_for_a_logarithm() -> None:
    assert spans_decades(np.array([0.1, np.nan, 10.0]))
    assert not spans_decades(np.array([0.0, 1000.0]))
    assert not spans_decades(np.array([1.0, 99.0]))
    assert not spans_decades(np.array([np.nan]))
