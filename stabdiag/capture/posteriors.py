"""Gaussian posteriors in the graph of a loss: found by the Kullback-Leibler term that they are held by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from stabdiag.capture.saved_tensors import Node, kind, saved

NODES = 512
CHAIN = 8
SUMS = {"Add", "Sub", "Rsub"}
LINEAR = {
    "Sum", "Mean", "Neg", "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "ToCopy", "Clone",
    "Expand", "Clamp", "ClampMin", "Select", "Slice", "Stack", "Cat", "Unbind", "Alias", "Maximum",
}  # fmt: skip
SCALED = {"Mul", "Div"}
PASSED_ON = {
    "Split", "SplitWithSizes", "Slice", "Select", "Chunk", "View", "UnsafeView", "ReshapeAlias", "Clamp",
    "Expand", "Squeeze", "Unsqueeze", "Unbind", "Permute", "Transpose", "Alias", "ToCopy", "Clone", "Sub",
    "Div", "Mul",
}  # fmt: skip


class Posterior(NamedTuple):
    """`mean` and `variance` of diagonal Gaussians, of one shape; `node` made the mean."""

    mean: torch.Tensor
    variance: torch.Tensor
    node: Node


class _Term(NamedTuple):
    """`values`, and the node below the one that squared or exponentiated them."""

    values: torch.Tensor
    node: Node
    below: Node


def posteriors(roots: Sequence[Node]) -> list[Posterior]:
    """Of `roots`, the nodes of a loss: a mean squared, a variance and the logarithm of that variance, all
    of one shape, and all of which enter the loss linearly. No other loss in use is a sum of these three: that
    of a regression with a predicted variance divides by it."""
    reached = list(_linearly(roots))
    ids = {id(node) for node in reached}
    squares, exponentials, logs = [], [], []
    for node in reached:
        name = kind(node)
        below = node.next_functions[0][0] if node.next_functions else None
        if below is None:
            continue
        if name == "Exp" and (result := saved(node, "result")) is not None:
            exponentials.append(_Term(result, node, below))
        elif _squares(node, name) and (values := saved(node, "self")) is not None:
            squares.append(_Term(values, node, below))
        elif name == "Log":
            logs.append(below)
    logged = {id(node) for below in logs for node in _chain(below)}
    variances = [(term.values, term) for term in exponentials if _meets(term.below, ids)]
    variances += [
        (term.values.square(), term)
        for term in squares
        if id(term.node) in logged or _meets(term.below, logged) or _log_below(term.below, ids)
    ]
    taken = {id(term.node) for _, term in variances}
    means = [term for term in squares if id(term.node) not in taken]
    found = []
    for variance, _ in variances:
        mean = next((m for m in means if m.values.shape == variance.shape and variance.dim() > 1), None)
        if mean is not None:
            means = [other for other in means if other is not mean]
            found.append(Posterior(mean.values, variance, mean.below))
    return found


def source(node: Node) -> Iterator[Node]:
    """`node`, and those whose result it only passes on or takes a part of, the nearest first."""
    for _ in range(CHAIN):
        yield node
        if kind(node) not in PASSED_ON:
            return
        node = node.next_functions[0][0]
        if node is None:
            return


def _linearly(front: Sequence[Node]) -> Iterator[Node]:
    """The nodes on which the loss depends linearly, or by a maximum with a constant, the nearest first."""
    ahead = [node for node in front if node is not None]
    seen: set[int] = set()
    while ahead and len(seen) < NODES:
        node = ahead.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        name = kind(node)
        below = [following for following, _ in node.next_functions if following is not None]
        if name in SUMS or name in LINEAR or (name in SCALED and len(below) == 1):
            ahead += below


def _squares(node: Node, name: str) -> bool:
    edges = node.next_functions
    if name == "Mul":
        return len(edges) == 2 and edges[0] == edges[1]
    return name == "Pow" and saved(node, "exponent") == 2


def _chain(node: Node) -> Iterator[Node]:
    """`node` and what it is but for a factor or a summand that is constant."""
    for _ in range(CHAIN):
        yield node
        below = [following for following, _ in node.next_functions if following is not None]
        if kind(node) not in SUMS | LINEAR | SCALED or len(below) != 1:
            return
        node = below[0]


def _meets(node: Node, ids: set[int]) -> bool:
    return any(id(one) in ids for one in _chain(node))


def _log_below(node: Node, ids: set[int]) -> bool:
    """Whether it is the exponential of something that is itself among `ids`."""
    for one in _chain(node):
        if kind(one) == "Exp" and one.next_functions[0][0] is not None:
            return _meets(one.next_functions[0][0], ids)
    return False
