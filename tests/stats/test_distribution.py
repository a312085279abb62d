from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from stabdiag.stats.distribution import FORMATS, QUANTILES, distribution_statistics


@pytest.fixture
def sample():
    return np.random.default_rng(0).standard_t(3, 5000).astype(np.float32)


def test_quantiles_and_kurtosis_are_those_of_scipy(sample):
    found = distribution_statistics(sample)
    double = sample.astype(np.float64)
    for name, share in QUANTILES.items():
        assert found[name] == pytest.approx(np.quantile(double, share))
    assert found["kurtosis"] == pytest.approx(stats.kurtosis(double, fisher=False), rel=1e-6)
    far = np.abs(double - double.mean()) > 6 * double.std()
    assert found["outliers"] == pytest.approx(far.mean())


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_lost_in_a_format_is_what_a_cast_loses(name):
    rng = np.random.default_rng(1)
    values = np.exp2(rng.uniform(-150, 127, 4000)).astype(np.float32) * rng.choice([-1, 0, 1], 4000)
    values = values.astype(np.float32)
    found = distribution_statistics(values)
    limit = torch.finfo(FORMATS[name]).max
    inside = torch.from_numpy(values[np.abs(values) <= limit])
    zeroed = (inside != 0) & (inside.to(FORMATS[name]).float() == 0)
    assert found[f"underflow_{name}"] == pytest.approx(int(zeroed.sum()) / np.count_nonzero(values))
    assert found[f"overflow_{name}"] == pytest.approx(np.mean(np.abs(values) > limit))


def test_what_is_not_finite_has_no_part_in_it(sample):
    spoilt = np.concatenate([sample, np.float32([np.nan, np.inf, -np.inf])])
    assert distribution_statistics(spoilt) == distribution_statistics(sample)


def test_a_tensor_of_one_value_or_of_none_is_no_error():
    constant = distribution_statistics(np.full(10, 2.0, np.float32))
    assert (constant["q50"], constant["outliers"]) == (2.0, 0.0)
    assert np.isnan(constant["kurtosis"])
    assert np.isnan(list(distribution_statistics(np.full(3, np.nan, np.float32)).values())).all()
