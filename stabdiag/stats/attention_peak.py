"""The largest logit of each head, of all queries and items: exact, and as dear as the product of queries and
keys."""

from __future__ import annotations

import torch

from stabdiag.stats.attention_explicit import Explicit
from stabdiag.stats.attention_fused import Fused
from stabdiag.stats.attention_mask import dots, four_dimensional, visible


def largest_logits(call: Fused | Explicit) -> torch.Tensor:
    """[heads], of keys that are seen, before additive biases; -inf where none is. One item at a time."""
    items = len(call.query)
    of_item = _fused if isinstance(call, Fused) else _explicit
    return torch.stack([of_item(call, i) for i in range(items)]).amax(0)  # type: ignore[arg-type]


def _fused(call: Fused, item: int) -> torch.Tensor:
    some = call.some(slice(item, item + 1))
    _, _, queries, keys = some.shape
    logits = dots(some.query, some.key) * some.scale
    bias = None if some.bias is None else four_dimensional(some.bias)
    shown = visible(bias, some.causal, torch.arange(queries, device=logits.device), keys)
    return logits.masked_fill(~shown, -torch.inf).amax((0, 2, 3))


def _explicit(call: Explicit, item: int) -> torch.Tensor:
    """The largest logit of a row never has a weight of zero."""
    logits = call.logits(call.query[item].float() @ call.key[item].float().mT)
    return logits.masked_fill(~(call.weights[item] > 0), -torch.inf).amax((1, 2))
