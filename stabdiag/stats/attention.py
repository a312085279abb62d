"""Attention, one row a head: how widely its weights are spread, and how large its logits are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from stabdiag.stats.family import Rows

WIDTH = 10
MERGE = (*[np.add] * 5, np.maximum, np.maximum, np.maximum, np.add, np.add)
IDENTITY = (*[0.0] * 5, -np.inf, -np.inf, 0.0, 0.0, 0.0)
LEAST_REST = 1e-3


def head_rows(
    entropy: torch.Tensor,
    first: torch.Tensor,
    keys: torch.Tensor,
    max_logit: torch.Tensor,
    upper: torch.Tensor,
    *,
    exact: bool,
    nonfinite: torch.Tensor,
) -> torch.Tensor:
    """[heads, WIDTH], to be merged by MERGE over calls, batches and ranks.

    `entropy` [items, heads, rows] in nats, `first` the weight of the first key, `keys` how many keys a row
    may see, both broadcastable to that; `max_logit`, `upper` and `nonfinite` [heads]. `exact` is False where
    the rows are a sample.

    Rows that see one key or none have no entropy to lose and are left out. The entropy over the other keys
    than the first, H(key | not the first), weighs each row by what it gives to these.
    """
    room = keys.log()
    entropy = torch.minimum(entropy.clamp_min(0.0), room)
    entr = torch.special.entr
    rest = 1.0 - first
    entropy_rest = torch.minimum((entropy - entr(first) - entr(rest)).clamp_min(0.0), rest * room)
    nothing = entropy.new_zeros(())
    counts, rest_counts = keys > 1, keys > 2
    sums = [
        counts.expand_as(entropy).float(),
        torch.where(counts, entropy, nothing),
        torch.where(counts, entropy / room, nothing),
        torch.where(rest_counts, rest, nothing),
        torch.where(rest_counts, entropy_rest, nothing),
    ]
    spread = torch.stack(sums).sum((1, 3))
    once = torch.ones_like(max_logit)
    sampled = torch.zeros_like(once) if exact else once
    return torch.cat([spread, torch.stack([max_logit, upper, sampled, nonfinite.float(), once])]).T


def merge(heads: NDArray[np.int64], rows: Rows, count: int) -> Rows:
    """Rows [n, WIDTH], each of head `heads[n]`, to one row a head: [count, WIDTH]."""
    merged = np.tile(np.array(IDENTITY, np.float32), (count, 1))
    for column, ufunc in enumerate(MERGE):
        ufunc.at(merged[:, column], heads, rows[:, column])
    return merged


def statistics(merged: Rows) -> dict[str, Rows]:
    """[heads, WIDTH] -> statistic: [heads]; NaN where nothing was measured.

    Of the other keys than the first also where these have less than a thousandth of the weight: that would
    be the quotient of two roundings.
    """
    rows, entropy, ratio, rest, entropy_rest, max_logit, upper, sampled, nonfinite, calls = merged.T
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "entropy": entropy / rows,
            "entropy_ratio": ratio / rows,
            "entropy_rest": np.where(rest > LEAST_REST * rows, entropy_rest / rest, np.nan),
            "max_logit": np.where(max_logit == -np.inf, np.nan, max_logit),
            "max_logit_upper": np.where(upper == -np.inf, np.nan, upper),
            "exact": np.where(rows > 0, 1 - sampled, np.nan),
            "nonfinite": np.where(calls > 0, nonfinite, np.nan),
        }
    return {name: values.astype(np.float32) for name, values in columns.items()}


def of_layers(heads: Mapping[str, Rows], layers: NDArray[np.int64], count: int) -> dict[str, Rows]:
    """Statistic -> [count] of heads, of which the n-th belongs to `layers[n]`.

    Of the entropies the mean, of the others the largest: the smallest of `exact`.
    """
    result = {}
    for name, values in heads.items():
        if name.startswith("entropy"):
            known = ~np.isnan(values)
            sums = np.bincount(layers, np.where(known, values, 0), count)
            with np.errstate(invalid="ignore"):
                result[name] = (sums / np.bincount(layers, known, count)).astype(np.float32)
        else:
            result[name] = np.full(count, np.nan, np.float32)
            (np.fmin if name == "exact" else np.fmax).at(result[name], layers, values)
    return result
