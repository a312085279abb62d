"""Attention whose weights were formed by a softmax that the script wrote."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from stabdiag.stats.attention import head_rows
from stabdiag.stats.attention_rows import SHARE, items_at, most_likely, rows_of


@dataclass(frozen=True, slots=True)
class Explicit:
    """What went into a softmax, and what came out.

    weights [items, heads, queries, keys], before dropout; query [items, heads, queries, width] and key
    [items, heads, keys, width], of which the scores were made. `logits` does to their products what the
    script did to them, as far as it is known: scaling and capping, not masks and biases.
    """

    weights: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    logits: Callable[[torch.Tensor], torch.Tensor]


def explicit(call: Explicit, turn: int) -> torch.Tensor:
    """[heads, WIDTH]. The entropy is that of a sixteenth of all rows, the logits are those of all items.

    A row that sees nothing is left out. Under a mask of -inf it is not a number, or zero where the softmax
    is a safe one; under a mask of the smallest finite number it is uniform.

    The mask itself is not known. A weight of zero tells a hidden key where the product of query and key
    alone would have given one that is no underflow.
    """
    items, heads, queries, keys = call.weights.shape
    scores = items * heads * queries * keys
    some = items_at(turn, items)
    rows = rows_of(queries, (some.stop - some.start) * heads * queries * keys, scores // SHARE)
    weights = call.weights[some, :, rows].float()
    if call.weights.dtype in (torch.float16, torch.bfloat16):
        weights = weights / weights.sum(-1, keepdim=True)
    logits = call.logits(call.query[some, :, rows].float() @ call.key[some].float().mT)
    top, at = weights.max(-1, keepdim=True)
    positions = torch.arange(queries, device=weights.device)[rows]
    least = math.log(torch.finfo(call.weights.dtype).tiny)
    equal = 8 * torch.finfo(call.weights.dtype).eps
    nothing = _sees_nothing(top[..., 0], weights.amin(-1), logits, equal)
    expected = logits - logits.gather(-1, at) + top.log()
    shown = (weights > 0) & ~nothing[..., None]
    hidden = (weights == 0) & (expected > least + 1)
    seen = torch.where(nothing, 0, _visible_keys(shown, hidden, positions))
    highest = torch.where(seen > 0, logits.gather(-1, at)[..., 0], -torch.inf).amax((0, 2))
    query_norm, key_norm = (torch.linalg.vector_norm(x.float(), dim=-1) for x in (call.query, call.key))
    upper = call.logits((query_norm.amax(2) * key_norm.amax(2))[..., None, None]).abs().amax((0, 2, 3))
    return head_rows(
        torch.special.entr(weights).sum(-1),
        weights[..., 0],
        seen.float(),
        torch.maximum(highest, _largest(call, query_norm)),
        upper,
        exact=rows.step == 1,
        nonfinite=~(upper < torch.inf),
    )


def _visible_keys(shown: torch.Tensor, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[items, 1, rows]: how many keys each row may see, from what is certain of each head.

    Masks are the same for all heads: what one head sees, all may see. Of keys that none is certain of it is
    taken that they may be seen, but if no query of an item sees a key after its own position: then the mask
    is causal.
    """
    shown = shown.any(1, keepdim=True)
    visible = shown | ~hidden.any(1, keepdim=True)
    later = torch.arange(shown.shape[-1], device=shown.device) > positions[:, None]
    causal = ~(shown & later).flatten(2).any(2)[..., None, None]
    return (visible & ~(causal & later)).sum(-1)


def _sees_nothing(
    most: torch.Tensor, least: torch.Tensor, logits: torch.Tensor, equal: float
) -> torch.Tensor:
    """[items, heads, rows], of the largest and the smallest weight of each. Logits that differ by more than
    `equal` do not have equal weights by themselves."""
    low, high = logits.aminmax(dim=-1)
    uniform = (most == least) & (high - low > equal)
    undefined = least.isnan() & (high - low < torch.inf)
    return uniform | undefined | (most == 0)


def _largest(call: Explicit, norms: torch.Tensor) -> torch.Tensor:
    """[heads]: the largest logit of the queries of largest norm, among the keys that they see.

    Rows whose weights are all equal see nothing, or have nothing to choose.
    """
    items, heads, queries, keys = call.weights.shape
    count = most_likely(queries, items * heads * queries * keys)
    at = norms.topk(count, -1).indices[..., None]
    query = call.query.gather(2, at.expand(-1, -1, -1, call.query.shape[-1])).float()
    logits = call.logits(query @ call.key.float().mT)
    weights = call.weights.gather(2, at.expand(-1, -1, -1, keys))
    shown = weights > weights.amin(-1, keepdim=True)
    return logits.masked_fill(~shown, -torch.inf).amax((0, 2, 3))
