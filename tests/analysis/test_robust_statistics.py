import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.analysis.episodes import episodes, longest_stretch
from stabdiag.analysis.robust import (
    MAD_TO_SIGMA,
    baseline,
    forward_filled,
    logarithmic_z,
    median,
    slope,
    spread,
    trailing_median,
)

numbers = st.floats(-1e6, 1e6, width=32)
holed = st.one_of(numbers, st.just(float("nan")), st.just(float("inf")))
series = st.lists(holed, max_size=60)


def slow_baseline(values, z, window, least, floor):
    """One obvious step at a time: a list of usual values, numpy's median of the last ones."""
    usual, center, scale, flagged = [], [], [], []
    for value in values:
        held = usual[-window:]
        if len(usual) >= least:
            middle = float(np.median(held))
            width = max(MAD_TO_SIGMA * float(np.median([abs(v - middle) for v in held])), floor)
            center.append(middle), scale.append(width), flagged.append(value > middle + z * width)
        else:
            center.append(np.nan), scale.append(np.nan), flagged.append(False)
        if np.isfinite(value) and not flagged[-1]:
            usual.append(value)
    return center, scale, flagged


@settings(max_examples=200, deadline=None)
@given(series, st.integers(1, 12), st.integers(1, 12), st.floats(0.5, 10))
def test_the_baseline_equals_the_slow_one(values, window, least, z):
    least = min(least, window)
    fast = baseline(values, z=z, window=window, least=least, floor=0.1)
    center, scale, flagged = slow_baseline(values, z, window, least, 0.1)
    np.testing.assert_allclose(fast.center, center, rtol=1e-9)
    np.testing.assert_allclose(fast.scale, scale, rtol=1e-9, atol=1e-9)
    assert fast.flagged.tolist() == flagged


@settings(max_examples=200, deadline=None)
@given(series, st.integers(1, 9))
def test_the_trailing_median_equals_numpy_on_each_window(values, window):
    got = trailing_median(values, window)
    for i in range(len(values)):
        part = np.array(values[max(0, i - window + 1) : i + 1])
        part = part[~np.isnan(part)]
        with np.errstate(invalid="ignore"):
            expected = np.median(part) if part.size else np.nan
        np.testing.assert_allclose(got[i], expected, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=12), st.sampled_from([0, 1]))
def test_the_median_equals_numpy_along_both_axes(rows, axis):
    np.testing.assert_allclose(median(np.array(rows), axis), np.median(rows, axis=axis), rtol=1e-6)


def test_the_median_leaves_nan_out_and_is_nan_where_nothing_is_left():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [2.0, np.inf, np.inf]], np.float32)
    np.testing.assert_array_equal(median(values, axis=1), [2.0, np.nan, np.inf])


@given(st.lists(numbers, min_size=2, max_size=25))
def test_the_slope_is_the_median_over_all_pairs(values):
    pairs = [(values[j] - values[i]) / (j - i) for i in range(len(values)) for j in range(i + 1, len(values))]
    assert slope(values) == pytest.approx(float(np.median(pairs)), rel=1e-6, abs=1e-6)


def test_the_slope_of_a_line_survives_an_outlier_and_a_gap():
    values = 2.0 * np.arange(12)
    values[[3, 7]] = np.nan, 1e9
    assert slope(values) == pytest.approx(2.0)
    assert np.isnan(slope([np.nan, 1.0]))


def test_a_flagged_value_neither_hides_itself_nor_the_next():
    values = np.r_[np.tile([1.0, 1.1, 0.9], 10), np.full(40, 9.0), 1.0]
    usual = baseline(values, z=6, window=16, least=8, floor=0.05)
    assert usual.flagged[30:70].all()
    assert not usual.flagged[70]
    assert usual.center[70] == pytest.approx(1.0)


def test_nan_does_not_blind_the_baseline():
    values = np.tile([1.0, 1.1, 0.9], 10)
    values[12:20] = np.nan
    usual = baseline(np.r_[values, 9.0], z=6, window=16, least=8)
    assert usual.flagged.tolist() == [False] * 30 + [True]


def test_spread_is_the_deviation_of_a_normal_bulk_and_ignores_outliers():
    values = np.random.default_rng(0).standard_normal(20_000) * 3
    values[:500] = 1e6
    assert spread(values) == pytest.approx(3.0, rel=0.05)
    assert spread([np.nan]) == 0.0


@given(st.lists(st.lists(holed, min_size=2, max_size=2), min_size=1, max_size=10))
def test_forward_filling_repeats_the_last_number(rows):
    table = np.array(rows)
    got = forward_filled(table)
    for column in range(2):
        last = np.nan
        for row in range(len(table)):
            last = last if np.isnan(table[row, column]) else table[row, column]
            np.testing.assert_equal(got[row, column], last)


@given(st.lists(st.booleans(), max_size=50), st.integers(0, 5))
def test_episodes_are_the_flagged_positions_joined_over_short_gaps(flags, gap):
    found = episodes(flags, np.arange(len(flags)), gap=gap)
    assert sum(e.count for e in found) == sum(flags)
    assert [e.peak for e in found] == [e.last for e in found]
    for e in found:
        assert flags[e.first]
        assert flags[e.last]
    for one, other in pairwise(found):
        assert other.first - one.last - 1 > gap
        assert not any(flags[one.last + 1 : other.first])


@given(st.lists(st.booleans(), max_size=50))
def test_the_longest_stretch_is_unbroken_and_none_is_longer(flags):
    first, length = longest_stretch(flags)
    assert all(flags[first : first + length])
    text = "".join("x" if flag else " " for flag in flags)
    assert length == max((len(part) for part in text.split()), default=0)


def test_a_value_is_as_far_out_by_its_logarithm_whatever_the_unit():
    past = np.exp(np.random.default_rng(0).standard_normal(400))
    assert logarithmic_z(past, np.exp(5.0)) == pytest.approx(5.0, rel=0.15)
    assert logarithmic_z(1e-6 * past, 1e-6 * np.exp(5.0)) == pytest.approx(logarithmic_z(past, np.exp(5.0)))


def test_what_can_be_negative_has_no_logarithm_to_hold_it_back():
    assert logarithmic_z([1.0, -1.0, 2.0], 3.0) == np.inf
    assert logarithmic_z([], 3.0) == np.inf
    assert np.isfinite(logarithmic_z([0.0, 1e-3, 2e-3], 3.0))


def test_the_median_of_nothing_is_not_a_number_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(median([]))
        assert np.isnan(median([np.nan, np.nan]))
        assert np.isnan(median(np.empty((0, 3)), axis=0)).tolist() == [True] * 3
        assert np.isnan(median(np.full((2, 2), np.nan), axis=1)).all()
    assert median([[3.0, np.nan], [1.0, 7.0]]) == 3.0
