"""How much of a step is recorded."""

from __future__ import annotations

from enum import IntEnum


class Tier(IntEnum):
    """Each includes those below it.

    NONE: the loss and the learning rate, nothing that touches a model-sized tensor.
    FAST: the norm of every gradient, the batch.
    STANDARD: one pass over outputs, their gradients, weights and updates; attention, logits, optimizer.
    SLOW: what takes several passes: distributions.
    RARE: what takes further forward and backward passes: curvature.
    """

    NONE = 0
    FAST = 1
    STANDARD = 2
    SLOW = 3
    RARE = 4
