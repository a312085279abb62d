"""Routers of mixtures of experts in an autograd graph: a choice among the scores of a few experts."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stabdiag.capture.saved_tensors import UNORDERED, Node, kind, saved

DEPTH = 6
MOST_EXPERTS = 1024
CHOICES = {"Topk": "indices", "Max": "indices", "Gather": "index"}
PASSED_ON = {"View", "UnsafeView", "ReshapeAlias", "Clone", "Alias", "ToCopy", "Mul", "Div", "Add", "Squeeze"}
SCORES = ("Softmax", "Sigmoid")
PRODUCTS = ("Mm", "Addmm", "Linear", "Bmm")


class RouterCall(NamedTuple):
    """Made by the nodes of sequence numbers `first` to `last`. `chosen`: int64, which of the experts;
    `scores` [tokens, experts]: not negative, None where the choice was made among logits."""

    first: int
    last: int
    chosen: torch.Tensor
    experts: int
    scores: torch.Tensor | None


def router_call(node: Node) -> RouterCall | None:
    """A choice (topk; max; gather of several) along the last dimension of the softmax or the sigmoid of a
    product of matrices, or a topk of such a product itself. One by argmax alone leaves no such node."""
    name = kind(node)
    chosen = saved(node, CHOICES[name]) if name in CHOICES else None
    if chosen is None or chosen.numel() == 0 or (name == "Gather" and chosen.shape[-1] < 2):
        return None
    squashed, reached = _scores(node)
    scores = saved(squashed, "result") if squashed is not None else None
    if not reached or (scores is None and (squashed is not None or name != "Topk")):
        return None
    sizes = saved(node, "self_sym_sizes") if scores is None else scores.shape
    last = saved(node, "dim") in (-1, UNORDERED, len(sizes) - 1)
    if not last or not 2 <= sizes[-1] <= MOST_EXPERTS:
        return None
    at = node._sequence_nr()
    if scores is None or squashed is None:
        return RouterCall(at, at, chosen, int(sizes[-1]), None)
    return RouterCall(squashed._sequence_nr(), at, chosen, sizes[-1], scores.reshape(-1, sizes[-1]))


def _scores(node: Node) -> tuple[Node | None, bool]:
    """The softmax or sigmoid above `node`, if there is one, and whether a product of matrices was reached."""
    squashed, above = None, node.next_functions[0][0]
    for _ in range(DEPTH):
        if above is None:
            break
        name = kind(above)
        if name in PRODUCTS:
            return squashed, True
        if name in SCORES and squashed is None:
            squashed = above
        elif name not in PASSED_ON:
            break
        above = above.next_functions[0][0]
    return squashed, False
