from __future__ import annotations

import pytest
import torch

from stabdiag.stats.fingerprint import BITS, checksum, folded

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.int8)


def slow(tensor: torch.Tensor) -> int:
    """The sum of little-endian words of eight bytes; what is left over goes in element by element."""
    data, width = tensor.view(torch.uint8).numpy().tobytes(), min(tensor.element_size(), 8)
    if tensor.is_complex():
        width = tensor.element_size() // 2
    whole = len(data) // 8 * 8
    words = [data[at : at + 8] for at in range(0, whole, 8)]
    words += [data[at : at + width] for at in range(whole, len(data), width)]
    total = sum(int.from_bytes(word, "little", signed=True) for word in words)
    return (total + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 1001])
def test_it_is_the_sum_of_all_words(dtype, size):
    tensor = (100 * torch.randn(size, generator=torch.Generator().manual_seed(size))).to(dtype)
    assert checksum(tensor).item() == slow(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_does_not_depend_on_where_the_memory_lies(dtype):
    whole = torch.arange(60).to(dtype)
    expected = checksum(whole[1:].clone())
    assert checksum(whole[1:]) == expected
    assert checksum(torch.stack([whole[1:], whole[1:]], -1)[..., 0]) == expected


def test_the_order_of_dimensions_in_memory_does_not_cost_a_copy(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "contiguous", None)
    monkeypatch.setattr(torch.Tensor, "clone", None)
    image = torch.randn(2, 4, 6, 6)
    assert checksum(image.permute(0, 2, 3, 1)) == checksum(image)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, torch.int32), (torch.bfloat16, torch.int16)])
def test_every_flipped_bit_is_seen_after_folding(dtype, bits):
    tensor = torch.randn(33).to(dtype)
    words, before = tensor.view(bits), folded(checksum(tensor))
    for at in range(33):
        for bit in range(torch.iinfo(bits).bits):
            flip = torch.tensor(1, dtype=bits) << bit
            words[at] ^= flip
            assert folded(checksum(tensor)) != before
            words[at] ^= flip
    assert folded(checksum(tensor)) == before


def test_folded_checksums_spread_over_all_integers_that_float32_holds():
    values = folded(torch.arange(-5000, 5000))
    assert values.dtype == torch.float32
    assert (values == values.round()).all()
    assert 0 <= values.min() < 2**BITS / 100
    assert 2**BITS * 0.99 < values.max() < 2**BITS
    assert len(values.unique()) > 9990
