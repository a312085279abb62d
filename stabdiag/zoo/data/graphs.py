"""Small random graphs whose nodes are labelled by a random teacher that looks at their neighbors, and at
theirs."""

from __future__ import annotations

import torch
from torch import Tensor

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

NODES, DEGREE = 12, 3.0
HIDDEN = 16


def mean_of_neighbors(values: Tensor, edges: Tensor) -> Tensor:
    """Of what the sources of the edges [2, edges] into each node hold, [nodes, …]; 0 where there is none."""
    sources, targets = edges
    total = torch.zeros_like(values).index_add(0, targets, values[sources])
    count = targets.bincount(minlength=len(values)).clamp(min=1)
    mean: Tensor = total / count[:, None]
    return mean


def graphs(seed: int, batch: int, features: int, classes: int) -> Batches:
    """Features [nodes, features] from N(0, 1), edges int64 [2, edges] in both directions, and classes int64
    [nodes], of all nodes of `batch` graphs that are joined by no edge."""
    world = generator(seed, 0)
    first = torch.randn(features, HIDDEN, generator=world) * (2 / features**0.5)
    second = torch.randn(HIDDEN, classes, generator=world)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        points = torch.randn(batch * NODES, features, generator=source)
        joined = torch.rand(batch, NODES, NODES, generator=source).triu(1) > 1 - DEGREE / (NODES - 1)
        graph, a, b = joined.nonzero(as_tuple=True)
        ends = torch.stack([a, b]) + graph * NODES
        edges = torch.cat([ends, ends.flip(0)], 1)
        seen = points + mean_of_neighbors(2 * points, edges)
        hidden = (seen @ first).tanh()
        values = (hidden + mean_of_neighbors(2 * hidden, edges)) @ second
        return points, edges, values.argmax(1)

    return take
