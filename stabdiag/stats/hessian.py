"""Products of a Hessian with vectors: by differences of gradients, or by a second backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from stabdiag.stats.real import real

RELATIVE_STEP = {torch.float32: 3e-5, torch.float64: 1e-7}
LEAST_NORM = 1e-3

Gradient = Callable[[torch.Tensor], torch.Tensor]


class DifferenceProducts:
    """`product(v)` is (g(w + ε v) − g(w)) / ε, for the gradient g of a loss at weights w; `here` is g(w).

    Weights and vectors are flat [n], in float32 or float64. The perturbation ε‖v‖ is a fixed share of ‖w‖:
    larger ones see the curvature of the curvature along steep directions, smaller ones are lost in the
    rounding of the gradients. A product costs one gradient, and works wherever a gradient does: double
    backward costs 1.5 to 2.8 of them, and fused attention has none.

    Where the gradient jumps, as a ReLU's does, a jump within ε counts as a curvature of its height over ε,
    which can be a thousand times the rest: there `GraphProducts` have to be taken.
    """

    def __init__(self, gradient: Gradient, weights: torch.Tensor, here: torch.Tensor) -> None:
        self._gradient = gradient
        self._weights = weights
        self._length = RELATIVE_STEP[weights.dtype] * weights.norm().clamp(min=LEAST_NORM)
        self.here = here

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        """Zero for a vector of zeros."""
        step = self._length / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)
        there = self._gradient(torch.addcmul(self._weights, vector, step))
        product: torch.Tensor = (there - self.here) / step
        return product


class GraphProducts:
    """`product(v)` is the derivative of g·v, for the gradient g of `loss` with respect to `leaves`, that lie
    side by side in flat vectors [n]. Exact almost everywhere; keeps the graph of g,
    and costs about two gradients.

    RuntimeError where an operation has no second derivative, here or at the first product.
    """

    def __init__(self, loss: torch.Tensor, leaves: Sequence[torch.Tensor]) -> None:
        self._leaves = leaves
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        self._gradient = flat(gradients, leaves)
        self.here = self._gradient.detach()

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        if not self._gradient.requires_grad:  # the loss is linear
            return torch.zeros_like(vector)
        products = torch.autograd.grad(
            self._gradient, self._leaves, vector, retain_graph=True, allow_unused=True
        )
        return flat(products, self._leaves)


def flat(gradients: Sequence[torch.Tensor | None], leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """[n], in the widest of their types, complex ones as both parts of each, zero where there is none."""
    parts = []
    for gradient, leaf in zip(gradients, leaves, strict=True):
        dense = torch.zeros_like(leaf) if gradient is None else gradient
        parts.append(real(dense.to_dense() if dense.is_sparse else dense).reshape(-1))
    return torch.cat(parts)
