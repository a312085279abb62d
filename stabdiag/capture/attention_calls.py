"""Attention in an autograd graph: calls of fused kernels, and softmax of the product of two activations.

The graph is read when a forward pass has left it behind. So whatever way led to a kernel is seen, and
nothing stands in that way: neither the choice of the kernel, nor what torch.compile traces, nor a traceback
can depend on being watched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import nn

from stabdiag.capture.saved_tensors import UNORDERED, Node, kind, saved
from stabdiag.capture.tensors import local
from stabdiag.stats.attention_explicit import Explicit, explicit
from stabdiag.stats.attention_fused import Fused, fused
from stabdiag.stats.attention_peak import largest_logits

Step = Callable[[torch.Tensor], torch.Tensor]
Edge = tuple[Node, int]
DEPTH = 16
LAYOUT = {"View", "UnsafeView", "ReshapeAlias", "Clone", "Alias", "ToCopy", "Squeeze", "Unsqueeze"}
MASKS = {"Add", "Sub", "MaskedFill", "Where"}
ON_THE_WAY = LAYOUT | {"Expand", "Transpose", "Permute", "T", "Mul", "Div"}
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads", "num_head")


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Made by the nodes of sequence numbers `first` to `last`. `query` and `key` are the edges of the graph
    that lead to these. `folded`: its items are items times heads."""

    first: int
    last: int
    of: Fused | Explicit
    query: Edge
    key: Edge
    folded: bool = False

    def within(self, module: nn.Module) -> AttentionCall:
        """The same with heads and items told apart, where `module` says how many heads it has."""
        named = (getattr(module, name, None) for name in HEADS)
        heads = next((n for n in named if isinstance(n, int) and n > 1), 1)
        if not self.folded or not isinstance(self.of, Explicit) or self.shape[0] % heads:
            return self
        weights, query, key = (
            x.reshape(-1, heads, *x.shape[-2:]) for x in (self.of.weights, self.of.query, self.of.key)
        )
        return replace(self, of=Explicit(weights, query, key, self.of.logits), folded=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Items, heads, queries, keys."""
        return self.of.shape if isinstance(self.of, Fused) else tuple(self.of.weights.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.of.query.dtype

    def measure(self, turn: int) -> torch.Tensor:
        """[heads, WIDTH], of another part of the batch at each turn."""
        with torch.autocast(self.of.query.device.type, enabled=False):
            return fused(self.of, turn) if isinstance(self.of, Fused) else explicit(self.of, turn)

    def largest(self) -> torch.Tensor:
        """[heads]: the largest logit of each."""
        with torch.autocast(self.of.query.device.type, enabled=False):
            return largest_logits(self.of)


def attention_call(node: Node) -> AttentionCall | None:
    """None for other nodes, and for attention of which too little is kept to be measured."""
    name = kind(node)
    if name.startswith("ScaledDotProduct"):
        return _fused(node)
    return _explicit(node) if name in ("Softmax", "SafeSoftmax") else None


def _fused(node: Node) -> AttentionCall | None:
    query, key = _tensor(node, "query"), _tensor(node, "key")
    bias = _tensor(node, "attn_mask", "attn_bias")
    lse = _tensor(node, "logsumexp", "log_sumexp")
    if query is None or key is None or lse is None or query.dim() != 4:
        return None
    scale = saved(node, "scale")
    call = Fused(
        query,
        key,
        bias,
        bool(saved(node, "is_causal")),
        query.shape[-1] ** -0.5 if scale is None else float(scale),
        lse.reshape(*query.shape[:2], -1)[..., : query.shape[2]],
    )
    at = node._sequence_nr()
    query_edge, key_edge = node.next_functions[:2]
    return AttentionCall(at, at, call, query_edge, key_edge)


def _tensor(node: Node, *names: str) -> torch.Tensor | None:
    """The first of these that is kept, if it has floating elements in memory."""
    for name in names:
        value = saved(node, name)
        if value is not None:
            value = local(value)
            dense = type(value) is torch.Tensor and value.layout is torch.strided and value.numel()
            return value if dense and value.is_floating_point() else None
    return None


def _explicit(node: Node) -> AttentionCall | None:
    weights, dim = _tensor(node, "result"), saved(node, "dim")
    if weights is None or weights.dim() < 3 or dim not in (weights.dim() - 1, -1, UNORDERED):
        return None
    found = _product(node.next_functions[0][0], DEPTH)
    if found is None:
        return None
    product, steps = found
    names = ("self", "mat2") if kind(product) == "Bmm" else ("batch1", "batch2")
    query, key = (_tensor(product, name) for name in names)
    if query is None or key is None:
        return None
    key = key.mT
    rows = math.prod(weights.shape[:-2])
    if weights.shape[-2:] != (query.shape[1], key.shape[1]) or rows != len(query):
        return None
    items, heads = weights.shape[0], rows // weights.shape[0]
    folded = weights.dim() == 3
    weights, query, key = (x.reshape(items, heads, *x.shape[-2:]) for x in (weights, query, key))
    call = Explicit(weights, query, key, lambda scores: reduce(lambda x, step: step(x), steps, scores))
    query_edge, key_edge = product.next_functions[-2:]
    return AttentionCall(product._sequence_nr(), node._sequence_nr(), call, query_edge, key_edge, folded)


def _product(node: Node | None, depth: int) -> tuple[Node, list[Step]] | None:
    """The product of two batches of matrices whose scaled and masked elements reach `node`, and its scaling.

    A parameter is no activation: what is multiplied with one are the logits of a classifier or a router.
    """
    if node is None or depth == 0:
        return None
    name = kind(node)
    if name in ("Bmm", "Baddbmm"):
        if any(_is_parameter(operand, DEPTH) for operand, _ in node.next_functions[-2:]):
            return None
        factor = saved(node, "alpha") if name == "Baddbmm" else 1
        return node, [] if factor == 1 else [lambda x: x * factor]
    if name not in LAYOUT | MASKS | {"Mul", "Div", "Tanh"} and not (name == "Permute" and _in_order(node)):
        return None
    for operand, (following, _) in enumerate(node.next_functions):
        found = _product(following, depth - 1)
        if found is not None:
            return found[0], [*found[1], *_step(node, name, operand)]
    return None


def _is_parameter(node: Node | None, depth: int) -> bool:
    """Whether nothing but layout and scaling is between this and a leaf of the graph."""
    while node is not None and depth:
        if node._sequence_nr() == UNORDERED:
            return True
        if kind(node) not in ON_THE_WAY:
            return False
        node, depth = node.next_functions[0][0], depth - 1
    return False


def _in_order(node: Node) -> bool:
    """Whether a permutation moves none but dimensions of size one, as einsum does."""
    shape = node._input_metadata[0].shape
    sources = [dim for place, dim in enumerate(saved(node, "dims")) if shape[place] != 1]
    return sources == sorted(sources)


def _step(node: Node, name: str, operand: int) -> list[Step]:
    """What a node does to visible logits. Factors that differ from key to key are taken for masks."""
    if name == "Tanh":
        return [torch.tanh]
    if name not in ("Mul", "Div"):
        return []
    factor = saved(node, "self" if operand else "other")
    if isinstance(factor, torch.Tensor):
        factor = local(factor)
        if factor.numel() == 1:
            factor = factor.reshape(())
            factor = factor.item() if factor.device.type == "cpu" else factor.float()
        elif factor.shape[-2:] != (1, 1):
            return []
    if factor is None:
        return []
    return [(lambda x: x * factor) if name == "Mul" else (lambda x: x / factor)]
