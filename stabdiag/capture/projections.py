"""Which rows of which weights make the queries and the keys of a head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from stabdiag.capture.attention_calls import LAYOUT, AttentionCall, Edge
from stabdiag.capture.replay import aside
from stabdiag.capture.saved_tensors import Node, kind

PRODUCTS = ("Addmm", "Mm", "Linear")
LINEAR = LAYOUT | {
    "Expand", "Transpose", "Permute", "T", "Mul", "Add", "Sub", "Neg", "Cat", "Stack", "Select", "Slice",
    "Split", "SplitWithSizes", "Unbind", "Index", "ViewAsComplex", "ViewAsReal", "Flip", "Roll",
    "RepeatInterleave", "Copy", "Contiguous",
}  # fmt: skip
"""What may lie between a projection and the product of queries and keys, so that their logits grow with the
projection's weights: layout, scaling and rotary positions."""

MOST = 200


@dataclass(frozen=True)
class Projection:
    """`weight` [features out, features in] and `bias` of a linear map, and for each head its rows: bool,
    [heads, features out]."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    rows: torch.Tensor


def projection(edge: Edge, heads: int) -> Projection | None:
    """What made the tensor at the end of `edge`, [items, heads, ...] or [items · heads, ...]; None where that
    is not one linear map and linear steps after it.

    The rows are told by a backward pass from each head to the map's output, of a random gradient: what takes
    none of it does not belong to the head.
    """
    makers = set(_makers(edge[0]))
    if len(makers) != 1:
        return None
    maker = makers.pop()
    if maker is None:
        return None
    weight, bias = _leaf(maker.next_functions[_weight_at(maker)][0]), _bias(maker)
    if weight is None:
        return None
    rows = torch.stack([_reached(edge, maker, head, heads) for head in range(heads)])
    return Projection(weight, bias, rows) if rows.shape[1] == len(weight) else None


def _makers(node: Node | None) -> Iterator[Node | None]:
    """The linear maps that `node` leads to; None among them for anything that is no linear step."""
    ahead: list[Node | None] = [node]
    seen: set[Node] = set()
    while ahead and len(seen) < MOST:
        at = ahead.pop()
        if at is None or at in seen:
            continue
        seen.add(at)
        if kind(at) in PRODUCTS:
            yield at
        elif kind(at) in LINEAR:
            ahead += [following for following, _ in at.next_functions]
        else:
            yield None


def _weight_at(maker: Node) -> int:
    return {"Addmm": 2, "Mm": 1, "Linear": 1}[kind(maker)]


def _leaf(node: Node | None) -> torch.Tensor | None:
    """The parameter that `node` leads to by transposing and casting alone."""
    while node is not None and kind(node) in ("T", "Transpose", "ToCopy"):
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def _bias(maker: Node) -> torch.Tensor | None:
    if kind(maker) == "Mm":
        return None
    position = 0 if kind(maker) == "Addmm" else 2
    return _leaf(maker.next_functions[position][0]) if position < len(maker.next_functions) else None


def _reached(edge: Edge, maker: Node, head: int, heads: int) -> torch.Tensor:
    """Bool, [features out]."""
    meta: Any = edge[0]._input_metadata[edge[1]]
    of_head = torch.zeros(tuple(meta.shape), dtype=meta.dtype, device=meta.device)
    each = of_head.view(-1, heads, *meta.shape[-2:]) if len(meta.shape) == 3 else of_head
    generator = torch.Generator(meta.device).manual_seed(0)  # the script's own random numbers stay
    part = each[:, head]
    part.copy_(torch.rand(part.shape, generator=generator, device=meta.device) + 0.5)
    with aside():
        (reached,) = torch.autograd.grad(
            [GradientEdge(*edge)], [GradientEdge(maker, 0)], [of_head], retain_graph=True
        )
    return (reached != 0).flatten(0, -2).any(0)


def projections(call: AttentionCall) -> tuple[Projection, Projection] | None:
    """Of the queries and of the keys; heads that share keys have the same rows of the latter."""
    heads = call.shape[1]
    groups = call.of.key.shape[1]
    query, key = projection(call.query, heads), projection(call.key, groups)
    if query is None or key is None:
        return None
    return query, Projection(key.weight, key.bias, key.rows.repeat_interleave(heads // groups, 0))
