from __future__ import annotations

import numpy as np
import pytest
import torch

from stabdiag.stats.tokens import STATISTICS, sampled, token_statistics


def in_float64(tokens: torch.Tensor) -> list[float]:
    cosines, ranks = [], []
    for sequence in tokens.double().numpy():
        there = sequence[np.linalg.norm(sequence, axis=1) > 0]
        unit = there / np.linalg.norm(there, axis=1, keepdims=True)
        matrix = unit @ unit.T
        upper = np.triu_indices(len(unit), 1)
        cosines.append(matrix[upper].mean())
        values = np.linalg.eigvalsh(matrix)
        ranks.append(values.sum() ** 2 / (values**2).sum())
    table = tokens.double().numpy()
    within = table.var(axis=1).mean(axis=0) / (table**2).mean(axis=(0, 1))
    return [float(np.mean(cosines)), float(np.median(within)), float(np.mean(ranks))]


@pytest.mark.parametrize("common", [0.0, 1.0, 30.0])
def test_cosine_spread_and_rank_are_those_of_float64(common):
    torch.manual_seed(0)
    tokens = torch.randn(3, 16, 33) + common * torch.randn(3, 1, 33)
    found = token_statistics(tokens).tolist()
    assert found == pytest.approx(in_float64(tokens), rel=1e-3, abs=1e-5)


def test_tokens_that_are_all_one_have_rank_one_and_no_spread():
    tokens = torch.randn(2, 1, 32).expand(2, 12, 32)
    assert dict(zip(STATISTICS, token_statistics(tokens).tolist(), strict=True)) == {
        "cosine": pytest.approx(1.0, abs=1e-5),
        "spread": pytest.approx(0.0, abs=1e-5),
        "rank": pytest.approx(1.0, abs=1e-5),
    }


def test_a_huge_channel_that_all_tokens_share_moves_the_cosine_and_not_the_spread():
    torch.manual_seed(0)
    tokens = torch.randn(2, 16, 64)
    tokens[:, :, 5] = 1000.0
    cosine, spread, _ = token_statistics(tokens).tolist()
    assert cosine > 0.9
    assert spread > 0.8


def test_padding_does_not_count_for_the_cosine():
    torch.manual_seed(0)
    tokens = torch.randn(1, 16, 64)
    padded = torch.cat([tokens, torch.zeros(1, 16, 64)], 1)
    assert token_statistics(padded)[0].item() == pytest.approx(token_statistics(tokens)[0].item(), abs=1e-5)


def test_large_tensors_are_sampled():
    assert sampled(torch.zeros(33, 1000, 5000)).shape == (4, 63, 1000)
    assert sampled(torch.zeros(3, 10, 8)).shape == (3, 10, 8)
