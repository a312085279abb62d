"""Attention whose weights were never formed: entropy from the log-sum-exp, logits of the likeliest rows.

With s_ij = scale · q_i·k_j and p_i = softmax(s_i), the entropy of a row is
H_i = lse_i - Σ_j p_ij s_ij = lse_i - scale · q_i·(Σ_j p_ij k_j), and the sum in brackets is what the same
kernel returns when the keys stand in the place of the values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from stabdiag.stats.attention import head_rows
from stabdiag.stats.attention_mask import HIDDEN, dots, four_dimensional, is_mask, visible
from stabdiag.stats.attention_rows import SHARE, items_at, most_likely, rows_of


@dataclass(frozen=True, slots=True)
class Fused:
    """What a kernel was given and returned.

    query [items, heads, queries, width]; key [items, groups, keys, width]; additive bias, broadcastable to
    [items, heads, queries, keys]; log-sum-exp of the logits, [items, heads, queries].
    """

    query: torch.Tensor
    key: torch.Tensor
    bias: torch.Tensor | None
    causal: bool
    scale: float
    logsumexp: torch.Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Items, heads, queries, keys."""
        items, heads, queries, _ = self.query.shape
        return items, heads, queries, self.key.shape[2]

    def some(self, items: slice) -> Fused:
        bias = None if self.bias is None else four_dimensional(self.bias)
        return replace(
            self,
            query=self.query[items].float(),
            key=self.key[items].float(),
            bias=bias if bias is None else (bias if len(bias) == 1 else bias[items]).float(),
        )


def fused(call: Fused, turn: int) -> torch.Tensor:
    """[heads, WIDTH]. The entropy is that of a sixteenth of the items, the logits are those of all.

    All rows of these items count, without a matrix of weights, where a kernel returns the log-sum-exp and
    the bias only hides keys; else evenly spaced ones. `max_logit` is taken before any bias.
    """
    some = call.some(items_at(turn, call.shape[0]))
    largest = _largest(call)
    lse = call.logsumexp
    if call.bias is not None:  # some kernels give rows that see no key an infinite one
        lse = lse.masked_fill(lse == torch.inf, -torch.inf)
    upper = lse.amax((0, 2)).float()
    broken = ~(largest + upper < torch.inf)
    if some.bias is None:
        rows = _exact(some, largest, upper, broken)
        return _sampled(some, largest, upper, broken) if rows is None else rows
    plain = is_mask(some.bias)
    on_host = plain.device.type == "cpu"
    rows = None if on_host and not plain else _exact(some, largest, upper, broken)
    if rows is not None and on_host:
        return rows
    sampled = _sampled(some, largest, _largest_possible(call), broken)
    return sampled if rows is None else torch.where(plain, rows, sampled)


def _largest(call: Fused) -> torch.Tensor:
    """[heads]: the largest logit of the queries with the largest log-sum-exp."""
    items, heads, queries, keys = call.shape
    count = most_likely(queries, items * heads * queries * keys)
    at = call.logsumexp.topk(count, -1).indices
    query = call.query.gather(2, at[..., None].expand(-1, -1, -1, call.query.shape[-1]))
    logits = dots(query.float(), call.key.float()) * call.scale
    bias = call.bias
    if bias is not None:
        bias = four_dimensional(bias).expand(call.shape).gather(2, at[..., None].expand(-1, -1, -1, keys))
    if bias is not None or call.causal:
        logits.masked_fill_(~visible(bias, call.causal, at, keys), -torch.inf)
    return logits.amax((0, 2, 3))


def _largest_possible(call: Fused) -> torch.Tensor:
    """[heads]: by the inequality of Cauchy and Schwarz; a bias may have put the log-sum-exp anywhere."""
    query, key = (torch.linalg.vector_norm(x.float(), dim=-1).amax(2) for x in (call.query, call.key))
    bound: torch.Tensor = query * key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    return bound.amax(0) * abs(call.scale)


def _attend(call: Fused) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Σ_j p_ij k_j and the log-sum-exp; None where no kernel returns both."""
    query, key, bias = call.query, call.key, call.bias
    try:
        if query.device.type == "cpu":
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, key, 0.0, call.causal, attn_mask=bias, scale=call.scale
            )
        elif query.device.type == "cuda":
            items, heads, queries, keys = call.shape
            key = key.repeat_interleave(heads // key.shape[1], 1)
            if bias is not None:  # its rows have to begin at aligned addresses
                bias = F.pad(bias, (0, -keys % 8))[..., :keys].expand(items, heads, queries, keys)
            out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
                query, key, key, bias, True, 0.0, call.causal, scale=call.scale
            )
        else:
            return None
    except (RuntimeError, AttributeError):
        return None
    return out, lse[..., : query.shape[2]]


def _exact(
    call: Fused, largest: torch.Tensor, upper: torch.Tensor, broken: torch.Tensor
) -> torch.Tensor | None:
    attended = _attend(call)
    if attended is None:
        return None
    mean_key, lse = attended
    _, _, queries, keys = call.shape
    entropy = lse - call.scale * (call.query * mean_key).sum(-1)
    key = call.key[:, :, :1].repeat_interleave(call.query.shape[1] // call.key.shape[1], 1)
    first = torch.exp(call.scale * (call.query * key).sum(-1) - lse)
    if call.bias is None:
        seen = torch.arange(1, queries + 1, device=lse.device).clamp_max(keys)
        seen = seen if call.causal else torch.full_like(seen, keys)
    else:
        shown = call.bias > HIDDEN
        first = torch.where(shown[..., 0], first, 0.0)
        seen = shown.sum(-1)
    return head_rows(entropy, first, seen.float(), largest, upper, exact=True, nonfinite=broken)


def _sampled(call: Fused, largest: torch.Tensor, upper: torch.Tensor, broken: torch.Tensor) -> torch.Tensor:
    items, heads, queries, keys = call.shape
    scores = items * heads * queries * keys
    rows = rows_of(queries, scores, scores // SHARE)
    logits = dots(call.query[:, :, rows], call.key) * call.scale
    bias = call.bias
    if bias is not None:
        bias = bias if bias.shape[2] == 1 else bias[:, :, rows]
        logits = logits + bias
    positions = torch.arange(queries, device=logits.device)[rows]
    shown = visible(bias, call.causal, positions, keys)
    weights = logits.masked_fill(~shown, -torch.inf).softmax(-1)
    entropy = torch.special.entr(weights).sum(-1)
    seen = shown.sum(-1).float()
    exact = rows.step == 1
    return head_rows(entropy, weights[..., 0], seen, largest, upper, exact=exact, nonfinite=broken)
