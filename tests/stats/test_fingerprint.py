from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.stats.fingerprint import BITS, SAMPLE, fingerprint

DTYPES = (
    torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8,
    torch.complex64,
)  # fmt: skip


def take(tensor: torch.Tensor) -> int:
    value = fingerprint(tensor)
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert 0 <= value < 2**BITS
    assert value == value.round()
    return int(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_tensors_agree_whatever_their_memory(dtype):
    torch.manual_seed(0)
    tensor = (torch.rand(30, 40) * 100).to(dtype)
    spread = torch.stack([tensor, tensor], -1)[..., 0]
    assert not spread.is_contiguous()
    assert take(tensor) == take(tensor.clone()) == take(spread)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 64), st.data())
def test_one_changed_element_changes_it(dtype, size, data):
    tensor = torch.arange(size).to(dtype)
    place = data.draw(st.integers(0, size - 1))
    changed = tensor.clone()
    changed[place] += data.draw(st.integers(1, 60))
    assert take(changed) != take(tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_numbers_are_told_apart(dtype):
    prints = {take(torch.tensor([2.0**n, 2.0], dtype=dtype)) for n in range(64)}
    assert len(prints) == 64


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_matters(dtype):
    tensor = torch.arange(1, 9).to(dtype)
    assert take(tensor) != take(tensor.flip(0))


def test_booleans_are_told_apart():
    mask = torch.zeros(8, dtype=torch.bool)
    prints = {take(mask)} | {take(mask | (torch.arange(8) == n)) for n in range(8)}
    assert len(prints) == 9


def test_random_batches_do_not_collide():
    torch.manual_seed(0)
    tokens = {take(torch.randint(0, 256, (8, 128))) for _ in range(1000)}
    images = {take(torch.randn(4, 3, 8, 8)) for _ in range(1000)}
    # By chance alone, 1000 batches collide once in thirty times.
    assert len(tokens) >= 999
    assert len(images) >= 999


def test_a_large_batch_is_sampled_all_over():
    tensor = torch.zeros(SAMPLE * 10)
    first, last = tensor.clone(), tensor.clone()
    first[: SAMPLE // 2] = 1
    last[-SAMPLE // 2 :] = 1
    assert len({take(tensor), take(first), take(last)}) == 3


def test_a_scalar_a_view_of_a_complex_and_one_that_needs_gradients_have_one_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(torch.tensor(3))
        take(torch.randn(3, dtype=torch.complex64).conj())
        take(torch.randn(3, requires_grad=True))
