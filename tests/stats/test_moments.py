from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabdiag.stats.family import Family
from stabdiag.stats.magnitude import Magnitude
from stabdiag.stats.moments import SAMPLE, Moments

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tensors(draw: st.DrawFn, odd: bool = False) -> torch.Tensor:
    """Real tensors of any floating dtype and up to three dimensions, some of them not contiguous."""
    shape = draw(st.lists(st.integers(1, 7), max_size=3))
    special = [float("nan"), float("inf"), -float("inf")] if odd else []
    value = st.one_of(st.floats(-100, 100, width=16), st.sampled_from([0.0, *special]))
    size = int(np.prod(shape))
    values = draw(st.lists(value, min_size=size, max_size=size))
    tensor = torch.tensor(values, dtype=draw(st.sampled_from(DTYPES))).reshape(shape)
    if draw(st.booleans()):
        tensor = tensor.mT if tensor.dim() > 1 else torch.stack([tensor, tensor], -1)[..., 0]
    return tensor


def oracle(tensor: torch.Tensor) -> dict[str, float]:
    x = tensor.to(torch.float64).numpy().ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "min": x.min(),
            "max": x.max(),
            "absmax": np.abs(x).max(),
            "mean": x.mean(),
            "rms": np.sqrt(np.mean(x * x)),
            "norm": np.sqrt(np.sum(x * x)),
            "zeros": np.mean(x == 0),
            "nonfinite": float(not np.isfinite(x).all()),
        }


either = pytest.mark.parametrize("family", [Moments(), Magnitude()])


@either
@quick
@given(tensor=tensors())
def test_statistics_agree_with_float64(measure, family: Family, tensor):
    expected = oracle(tensor)
    for name, (value,) in measure(family, tensor).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


@either
@quick
@given(tensor=tensors(odd=True))
def test_a_nan_or_an_infinity_anywhere_is_seen(measure, family, tensor):
    got, expected = measure(family, tensor), oracle(tensor)
    assert got["nonfinite"][0] == expected["nonfinite"]
    if expected["nonfinite"]:
        assert not np.isfinite(got["absmax"][0])
        if "zeros" in got:
            np.testing.assert_allclose(got["zeros"][0], expected["zeros"], rtol=1e-6)


@either
@quick
@given(tensor=tensors(), data=st.data())
def test_merged_chunks_are_the_whole(measure, family, tensor, data):
    flat = tensor.reshape(-1)
    cut = data.draw(st.integers(1, max(1, flat.numel() - 1)))
    parts = [part for part in (flat[:cut], flat[cut:]) if part.numel()]
    whole, merged = measure(family, flat), measure(family, *parts)
    for name, value in whole.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-5, atol=1e-4, err_msg=name)


@either
def test_merging_does_not_depend_on_the_order(measure, family):
    parts = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (1, 5, 33)]
    there, back = measure(family, *parts), measure(family, *reversed(parts))
    for name in there:
        np.testing.assert_allclose(there[name], back[name], rtol=1e-6, err_msg=name)


def test_sites_are_kept_apart_and_one_without_a_tensor_is_nan(measure):
    got = measure(Moments(), torch.ones(3), torch.full((2,), 4.0), sites=[2, 0], count=3)
    np.testing.assert_array_equal(got["mean"], [4, np.nan, 1])
    assert all(np.isnan(values[1]) for values in got.values())


@either
def test_nonfinite_counts_the_calls(measure, family):
    bad = torch.tensor([1.0, float("inf")])
    assert measure(family, bad, torch.ones(2), bad)["nonfinite"][0] == 2


@either
def test_large_numbers_keep_their_range_and_merge_without_overflow(measure, family):
    got = measure(family, *[torch.full((4,), 1e18)] * 200)  # their squares add up to more than float32 holds
    np.testing.assert_allclose([got["rms"][0], got["absmax"][0]], 1e18, rtol=1e-4)
    huge = measure(family, torch.full((4,), 1e30))
    assert huge["absmax"][0] == np.float32(1e30)
    assert huge["nonfinite"][0] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_are_taken_in_float32(measure, dtype):
    got = measure(Moments(), torch.full((300, 300), 1000.0, dtype=dtype))
    np.testing.assert_allclose([got["mean"][0], got["rms"][0]], 1000, rtol=1e-4)


def test_moments_of_a_large_tensor_are_estimated_and_its_range_is_not(measure):
    torch.manual_seed(0)
    tensor = torch.relu(torch.randn(SAMPLE * 9 + 5))
    tensor[-7] = 100
    got, expected = measure(Moments(), tensor), oracle(tensor.clamp(max=10))
    assert (got["min"][0], got["max"][0]) == (0, 100)
    for name in ("mean", "rms", "zeros"):
        assert got[name][0] == pytest.approx(expected[name], rel=0.05), name


def test_zeros_of_a_large_tensor_are_exact_at_the_ends(measure):
    size = SAMPLE * 9 + 5
    assert measure(Moments(), torch.zeros(size))["zeros"][0] == 1
    assert measure(Moments(), torch.ones(size))["zeros"][0] == 0


def test_the_norm_of_a_large_tensor_is_that_of_all_its_elements(measure):
    tensor = torch.zeros(SAMPLE * 9 + 5)
    tensor[-7] = 3
    assert measure(Magnitude(), tensor)["norm"][0] == 3
