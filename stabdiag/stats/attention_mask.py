"""Which keys a query may see, and what it scores them."""

from __future__ import annotations

import torch

HIDDEN = -1e3
"""An additive bias at or below this hides a key: scripts use -inf, the smallest finite number, or -10000."""


def four_dimensional(bias: torch.Tensor) -> torch.Tensor:
    """A view as [items or 1, heads or 1, queries or 1, keys]."""
    return bias[(None,) * (4 - bias.dim())]


def dots(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[items, heads, queries, width] · [items, groups, keys, width] -> [items, heads, queries, keys].

    Each group of keys serves heads / groups consecutive heads.
    """
    items, heads, queries, width = query.shape
    grouped = query.reshape(items, key.shape[1], -1, width) @ key.mT
    return grouped.view(items, heads, queries, -1)


def visible(bias: torch.Tensor | None, causal: bool, positions: torch.Tensor, keys: int) -> torch.Tensor:
    """Whether a query may see a key: bool, broadcastable to [items, heads, queries, keys].

    `positions` [..., queries] are the places of the queries, whose rows `bias` has. Under a causal mask
    query i sees the keys 0 to i, also where there are more or fewer keys than queries.
    """
    if bias is not None:
        return bias > HIDDEN
    last = positions if causal else torch.full_like(positions, keys - 1)
    return torch.arange(keys, device=positions.device) <= last[..., None]


def is_mask(bias: torch.Tensor) -> torch.Tensor:
    """Whether a bias only hides keys and leaves the logits of all others as they are: 0-d bool."""
    return ~((bias != 0) & (bias > HIDDEN)).any()
