"""Whether the gradient of a loss jumps, read off its graph."""

from __future__ import annotations

import torch

from stabdiag.capture.saved_tensors import kind

KINKED = frozenset(
    (
        "Relu", "LeakyRelu", "Prelu", "PreluKernel", "Rrelu", "RreluWithNoise", "Threshold", "Hardtanh",
        "Hardsigmoid", "Hardswish", "Clamp", "ClampMin", "ClampMax", "Abs", "Max", "Min", "Maximum",
        "Minimum", "Amax", "Amin", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D",
        "MkldnnMaxPool2D", "L1Loss", "Sort", "Topk",
    )
)  # fmt: skip
FUSED = "ScaledDotProduct"


def operations(loss: torch.Tensor) -> set[str]:
    """The kinds of all nodes that `loss` depends on."""
    ahead = [loss.grad_fn] if loss.grad_fn is not None else []
    seen = set(ahead)
    while ahead:
        fresh = {child for child, _ in ahead.pop().next_functions if child is not None} - seen
        seen |= fresh
        ahead += fresh
    return {kind(node) for node in seen}
