from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.stats import attention
from stabdiag.stats.attention_explicit import Explicit, explicit
from stabdiag.stats.attention_fused import Fused, fused
from stabdiag.stats.attention_rows import items_at

INF = float("inf")


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)


def tensors(items=2, heads=3, queries=24, keys=24, width=16, groups=None, gain=1.0, dtype=torch.float32):
    query = gain * torch.randn(items, heads, queries, width)
    key = gain * torch.randn(items, groups or heads, keys, width)
    return query.to(dtype), key.to(dtype)


def causal_mask(queries: int, keys: int) -> torch.Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril()


def materialised(query, key, shown=None, bias=None, scale=None, items=slice(None)):
    """[heads] of each statistic, from the whole matrix in float64, row by row."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    key = key.double().repeat_interleave(query.shape[1] // key.shape[1], 1)
    logits = scale * query.double() @ key.mT
    shown = torch.ones_like(logits, dtype=torch.bool) if shown is None else shown.expand_as(logits)
    weights = (logits + (0 if bias is None else bias)).masked_fill(~shown, -INF).softmax(-1)
    result = {"max_logit": logits.masked_fill(~shown, -INF).amax((0, 2, 3)).numpy()}
    heads = [
        of_rows(weights[items][:, h].flatten(0, 1), shown[items][:, h].flatten(0, 1))
        for h in range(len(weights[0]))
    ]
    return result | {name: np.array([head[name] for head in heads]) for name in heads[0]}


def of_rows(weights, shown):
    entropies, ratios, rests, shares = [], [], [], []
    for p, n in zip(weights, shown.sum(-1).tolist(), strict=True):
        entropy = torch.special.entr(p).sum().item()
        if n > 1:
            entropies.append(entropy)
            ratios.append(entropy / math.log(n))
        if n > 2 and p[0] < 1:
            shares.append(1 - p[0].item())
            rests.append(torch.special.entr(p[1:] / p[1:].sum()).sum().item())
    known = sum(shares) > attention.LEAST_REST * max(len(entropies), 1)
    return {
        "entropy": np.mean(entropies) if entropies else math.nan,
        "entropy_ratio": np.mean(ratios) if entropies else math.nan,
        "entropy_rest": np.average(rests, weights=shares) if known else math.nan,
    }


def of_fused(query, key, bias=None, causal=False, scale=None, turn=0):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    _, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, key, 0.0, causal, attn_mask=bias, scale=scale
    )
    return attention.statistics(fused(Fused(query, key, bias, causal, scale, lse), turn).numpy())


def of_explicit(query, key, bias=None, scale=None, turn=0):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights = (scale * query @ key.mT + (0 if bias is None else bias)).softmax(-1)
    return attention.statistics(explicit(Explicit(weights, query, key, lambda s: scale * s), turn).numpy())


def assert_exact(got, expected, logit=None):
    """`logit` is the relative error that the estimate of the largest one may have; else it is a lower end."""
    for name in ("entropy", "entropy_ratio", "entropy_rest"):
        np.testing.assert_allclose(got[name], expected[name], atol=1e-3, rtol=0, err_msg=name)
    assert np.all(got["exact"][np.isfinite(got["entropy"])] == 1)
    assert np.all(got["nonfinite"] == 0)
    if logit is not None:
        np.testing.assert_allclose(got["max_logit"], expected["max_logit"], rtol=logit)
    slack = 1e-5 * (1 + np.abs(np.nan_to_num(expected["max_logit"], neginf=0)))
    assert not np.any(got["max_logit"] > expected["max_logit"] + slack)
    assert not np.any(got["max_logit_upper"] < expected["max_logit"] - slack)


@pytest.mark.parametrize("gain", [0.01, 1, 3, 9])
@pytest.mark.parametrize("causal", [False, True])
def test_without_weights_the_entropy_is_that_of_the_materialised_softmax(gain, causal):
    query, key = tensors(items=2, queries=64, keys=64, gain=gain)
    shown = causal_mask(64, 64) if causal else None
    expected = materialised(query, key, shown, items=slice(1))
    assert_exact(of_fused(query, key, causal=causal), expected)


@pytest.mark.parametrize("gain", [3, 9])
def test_the_largest_logit_is_found_where_attention_is_sharp(gain):
    query, key = tensors(items=8, queries=128, keys=128, gain=gain)
    query *= torch.randn(8, 3, 128, 1).exp()  # tokens differ in norm, as they do in trained models
    for got in (of_fused(query, key), of_explicit(query, key)):
        np.testing.assert_allclose(got["max_logit"], materialised(query, key)["max_logit"], rtol=0.025)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 20), st.integers(2, 20),
    st.sampled_from(["none", "causal", "bool", "padding", "window", "lowest"]), st.integers(0, 2**16),
)  # fmt: skip
def test_any_shape_under_any_mask_agrees_with_the_materialised_softmax(
    items, heads, queries, keys, mask, seed
):
    torch.manual_seed(seed)
    query, key = tensors(items, heads, queries, keys, 8)
    shown = {
        "none": lambda: torch.ones(queries, keys, dtype=torch.bool),
        "causal": lambda: causal_mask(queries, keys),
        "bool": lambda: torch.rand(queries, keys) > 0.4,
        "lowest": lambda: torch.rand(items, 1, queries, keys) > 0.4,
        "padding": lambda: torch.arange(keys) < torch.randint(0, keys + 1, (items, 1, 1, 1)),
        "window": lambda: causal_mask(queries, keys).triu(-3),
    }[mask]()
    lowest = torch.finfo(torch.float32).min if mask == "lowest" else -INF
    bias = torch.zeros(shown.shape).masked_fill(~shown, lowest)
    expected = materialised(query, key, shown, items=items_at(1, items))
    if mask == "causal":
        assert_exact(of_fused(query, key, causal=True, turn=1), expected)
    assert_exact(of_fused(query, key, bias=bias, turn=1), expected)
    assert_exact(of_explicit(query, key, bias=bias, turn=1), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_single(dtype):
    query, key = tensors(items=1, gain=3, dtype=dtype)
    assert_exact(of_fused(query, key, causal=True), materialised(query, key, causal_mask(24, 24)))


def test_double_precision_is_measured():
    query, key = tensors(items=1, gain=3, dtype=torch.float64)
    assert_exact(of_fused(query, key), materialised(query, key))
    assert_exact(of_explicit(query, key), materialised(query, key))


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_heads_that_share_their_keys(groups):
    query, key = tensors(items=1, heads=4, groups=groups)
    bias = torch.zeros(24, 24).masked_fill(~causal_mask(24, 24), -INF)
    expected = materialised(query, key, causal_mask(24, 24))
    assert_exact(of_fused(query, key, causal=True), expected)
    assert_exact(of_fused(query, key, bias=bias), expected)


def test_a_bias_between_visible_keys_is_sampled_and_says_so_where_rows_are_left_out():
    query, key = tensors(items=1, heads=2, queries=256, keys=256)
    bias = -0.1 * (torch.arange(256)[:, None] - torch.arange(256)).abs().float()
    expected = materialised(query, key, bias=bias)
    got = of_fused(query, key, bias=bias)
    assert np.all(got["exact"] == 0)
    np.testing.assert_allclose(got["entropy"], expected["entropy"], rtol=0.03)
    assert np.all(got["max_logit"] <= expected["max_logit"] + 1e-4)
    assert np.all(got["max_logit_upper"] >= expected["max_logit"])
    small = slice(0, 32)
    got = of_fused(query[:, :, small], key[:, :, small], bias=bias[small, small])
    assert_exact(got, materialised(query[:, :, small], key[:, :, small], bias=bias[small, small]))


def test_where_no_kernel_returns_the_log_sum_exp_rows_are_sampled(monkeypatch):
    query, key = tensors(items=1, heads=2, queries=300, keys=300)
    monkeypatch.setattr("stabdiag.stats.attention_fused._attend", lambda call: None)
    expected = materialised(query, key, causal_mask(300, 300))
    scale = query.shape[-1] ** -0.5
    lse = (scale * query @ key.mT).masked_fill(~causal_mask(300, 300), -INF).logsumexp(-1)
    got = attention.statistics(fused(Fused(query, key, None, True, scale, lse), 0).numpy())
    assert np.all(got["exact"] == 0)
    np.testing.assert_allclose(got["entropy_ratio"], expected["entropy_ratio"], rtol=0.03)


def test_a_sink_hides_neither_the_entropy_of_the_other_keys_nor_makes_one_up():
    query, key = tensors(items=1, heads=2, gain=0.5)
    query[..., 0], key[..., 0] = 4.0, 0.0
    key[:, 0, 0, 0] = 8.0  # a weight of 0.99
    key[:, 1, 0, 0] = 60.0
    got = of_fused(query, key)
    assert_exact(got, materialised(query, key))
    assert got["entropy"][0] < 0.5 < 2.5 < got["entropy_rest"][0]
    assert np.isnan(got["entropy_rest"][1])  # what the others have is rounding
    assert_exact(of_explicit(query, key), materialised(query, key))


def test_the_mask_of_collapsed_heads_is_told_from_weights_that_underflow():
    query, key = tensors(items=1, heads=2, gain=30)  # logits in the thousands: nearly all weights are zero
    bias = torch.zeros(24, 24).masked_fill(~causal_mask(24, 24), -INF)
    got, expected = of_explicit(query, key, bias=bias), materialised(query, key, causal_mask(24, 24))
    np.testing.assert_allclose(got["entropy_ratio"], expected["entropy_ratio"], atol=1e-3)


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_a_number_that_is_none_is_told_of_and_stays_in_its_head(bad):
    query, key = tensors(items=16)
    query[3, 1, 5, 2] = bad
    for got in (of_fused(query, key), of_explicit(query, key)):
        assert got["nonfinite"].tolist() == [0, 1, 0]
        assert np.isfinite(got["entropy"][[0, 2]]).all()
        assert np.isfinite(got["max_logit"][[0, 2]]).all()


@pytest.mark.parametrize("hidden", [-INF, torch.finfo(torch.float32).min, -1e4])
def test_rows_that_see_nothing_or_one_key_are_left_out(hidden):
    query, key = tensors(items=1, gain=2)
    shown = causal_mask(24, 24)
    shown[3] = False
    bias = torch.zeros(24, 24).masked_fill(~shown, hidden)
    expected = materialised(query, key, shown)
    assert_exact(of_fused(query, key, bias=bias), expected)
    if hidden != -1e4:  # a softmax over equal penalties is one over the logits
        assert_exact(of_explicit(query, key, bias=bias), expected)


def test_nothing_to_measure_is_not_a_number():
    query, key = tensors(items=1, queries=1, keys=1)
    for got in (of_fused(query, key, causal=True), of_explicit(query, key)):
        assert np.isnan(got["entropy"]).all()
        assert np.isnan(got["exact"]).all()
        assert (got["nonfinite"] == 0).all()


def test_over_sixteen_turns_every_item_is_measured_once():
    covered = [i for turn in range(16) for i in range(32)[items_at(turn, 32)]]
    assert sorted(covered) == list(range(32))


def test_parts_of_a_batch_merge_to_the_whole():
    query, key = tensors(items=2)
    rows = []
    for i in range(2):
        _, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query[i : i + 1], key[i : i + 1], key[i : i + 1]
        )
        rows.append(fused(Fused(query[i : i + 1], key[i : i + 1], None, False, 0.25, lse), 0).numpy())
    merged = attention.merge(np.tile(np.arange(3), 2), np.concatenate(rows), 4)
    measured = attention.statistics(merged)
    assert all(np.isnan(values[3]) for values in measured.values())  # nothing was
    assert_exact({name: values[:3] for name, values in measured.items()}, materialised(query, key))


def test_a_layer_is_the_mean_of_its_heads_and_the_largest_of_their_logits():
    nothing = np.nan
    heads = {
        "entropy": np.array([1.0, 3.0, nothing, 5.0]), "max_logit": np.array([5.0, 9.0, 1.0, -2.0]),
        "exact": np.array([1.0, 0.0, 1.0, 1.0]), "nonfinite": np.array([0.0, 0.0, 2.0, nothing]),
        "entropy_rest": np.array([nothing, nothing, nothing, 1.0]),
    }  # fmt: skip
    layers = attention.of_layers(heads, np.array([0, 0, 0, 1]), 2)
    expected = {
        "entropy": [2.0, 5.0], "max_logit": [9.0, -2.0], "exact": [0.0, 1.0], "nonfinite": [2.0, nothing],
        "entropy_rest": [nothing, 1.0],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(layers[name], values, err_msg=name)
