"""Modules that run inside a function given to torch.compile, told from the graph that they leave behind.

No module is wrapped there and none is called: code that was compiled is one node of the autograd graph, and
the leaves that it reads are the next ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch import nn

from stabdiag.capture.saved_tensors import UNORDERED, Node, kind

MOST_NODES = 100_000


def compiled_leaves(roots: Iterable[torch.Tensor]) -> set[int]:
    """The ids of the leaves that compiled code reads, in the graph of `roots`."""
    if "torch._dynamo" not in sys.modules:
        return set()
    ahead: list[Node] = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen, leaves = set(ahead), set()
    while ahead and len(seen) < MOST_NODES:
        node = ahead.pop()
        compiled = kind(node) == "CompiledFunction"
        for following, _ in node.next_functions:
            if following is None:
                continue
            if compiled and following._sequence_nr() == UNORDERED:
                leaves.add(id(following.variable))
            if following not in seen:
                seen.add(following)
                ahead.append(following)
    return leaves


def run_inside(roots: Iterable[nn.Module], leaves: set[int]) -> list[nn.Module]:
    """The outermost modules in the trees of `roots` whose trained parameters are all among `leaves`."""
    found: list[nn.Module] = []
    ahead = list(roots) if leaves else []
    while ahead:
        module = ahead.pop()
        trained = [id(p) for p in module.parameters() if p.requires_grad]
        if trained and leaves.issuperset(trained):
            found.append(module)
        else:
            ahead += module.children()
    return found
