from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stabdiag.stats.rows import silent_rows
from stabdiag.stats.sample import SLABS, slab_places, slabs, stride_of, strided


@given(st.integers(1, 10**7), st.integers(1, 10**5))
def test_a_stride_is_odd_and_leaves_enough(size, limit):
    stride = stride_of(size, limit)
    assert stride % 2 == 1
    assert -(-size // stride) >= min(size, limit)
    # Odd strides come in twos: at most three times as many as were asked for are left.
    assert size <= 2 * limit or -(-size // stride) <= 3 * limit


def test_a_sample_is_a_view_that_reaches_from_end_to_end():
    tensor = torch.arange(10_000.0).reshape(100, 100)
    sample = strided(tensor, 100)
    assert sample.data_ptr() == tensor.data_ptr()
    assert sample[0] == 0
    assert sample[-1] > 9_800


def test_a_small_tensor_is_sampled_whole():
    assert strided(torch.arange(6).reshape(2, 3).mT, 10).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("size", [6401, 10_000, 123_457])
def test_slabs_are_even_contiguous_pieces_within_the_tensor(size):
    tensor = torch.arange(size)
    part = slabs(tensor, 6400)
    assert part.shape == (SLABS, 100)
    assert part.data_ptr() == tensor.data_ptr()
    assert bool((part.diff(dim=1) == 1).all())
    assert part.diff(dim=0).unique().numel() == 1
    assert part[0, 0] == 0
    assert size - SLABS <= part[-1, -1] < size


def test_slabs_respect_where_a_view_begins():
    tensor = torch.arange(20_000)[5_000:]
    assert slabs(tensor, 6400)[0, 0] == 5_000


def test_small_tensors_and_those_with_gaps_in_memory_come_back_whole():
    small, gaps = torch.ones(64), torch.ones(200, 100)[:, ::2]
    assert slabs(small, 6400) is small
    assert slabs(gaps, 6400) is gaps


def test_of_a_transposed_tensor_slabs_lie_as_its_memory_does():
    tensor = torch.arange(20_000).view(200, 100).mT
    assert bool((slabs(tensor, 6400).diff(dim=1) == 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_silent_rows_hold_exact_zeros_only(dtype):
    gradient = torch.zeros(5, 2, 3, dtype=dtype)
    gradient[1, 1, 2] = -1
    gradient[2, 0, 0] = torch.finfo(dtype).tiny
    gradient[3, 0, 1] = float("nan")
    gradient[4, 0, :2] = torch.tensor([1, -1])
    assert silent_rows(gradient).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("size", [7, 6400, 6401, 123_457])
def test_the_places_of_slabs_are_those_of_their_elements(size):
    assert torch.equal(
        slab_places(size, 6400, torch.device("cpu")), slabs(torch.arange(size), 6400).flatten()
    )
