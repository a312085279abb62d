"""Whether the gradient of a loss jumps, read off its graph."""

from __future__ import annotations

import torch

from stabdiag.capture.saved_tensors import kind

KINKED = frozenset(
    (
        "Relu", "LeakyRelu", "Prelu", "PreluKernel", "Rrelu", "RreluWithNoise", "Threshold", "Hardtanh",
        "Hardsigmoid", "Hardswish", "Clamp", "ClampMin", "ClampMax", "Abs", "Max", "Min", "Maximum",
        "Minimum", "Amax", "Amin", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D",
        "MkldnnMaxPool2D", "L1Loss", "Sgn", "Sort", "Topk",
    )
)  # fmt: skip
UNDIFFERENTIABLE = ("ScaledDotProduct", "CudnnRnn", "MiopenRnn", "MkldnnRnn", "Checkpoint")
MOST = 100_000


def kinked(loss: torch.Tensor) -> bool:
    """True where something that the loss is computed by has kinks, and all of it has second derivatives as
    far as is known."""
    found, ahead = False, [loss.grad_fn]
    seen = set(ahead)
    while ahead and len(seen) < MOST:
        node = ahead.pop()
        if node is None:
            continue
        name = kind(node)
        if any(part in name for part in UNDIFFERENTIABLE):
            return False
        found |= name in KINKED
        fresh = {child for child, _ in node.next_functions if child is not None} - seen
        seen |= fresh
        ahead += fresh
    return found
