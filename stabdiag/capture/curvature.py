"""One look at the curvature of a loss: how it is taken, and what is made of it on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stabdiag.capture.flat_loss import FlatLoss
from stabdiag.capture.row import Arrays
from stabdiag.stats.hessian import DifferenceProducts, GraphProducts
from stabdiag.stats.lanczos import Product, lanczos, ritz
from stabdiag.stats.spectrum import cold_start, warm_start

STATISTICS = (
    "lambda_max",
    "lambda_min",
    "lambda_max_preconditioned",
    "trace",
    "limit",
    "sharpness_ratio",
    "residual",
)
TURNS = ("scaled", "plain", "scaled", "trace")
COLD, WARM = 10, 3
EXACT = 0.02
VECTORS = 14
"""At once, of the size of all weights, at most."""

Products = DifferenceProducts | GraphProducts


@dataclass
class Tracked:
    """What is known of one operator: where to search next, and with how many products."""

    start: torch.Tensor
    products: int = COLD

    def learn(self, error: float) -> None:
        """`error`: that of the largest value, as a share of it. Three products follow an operator that
        changes little, which leaves no more to say than that; else one more is taken next time."""
        self.products = WARM if error <= EXACT else min(max(self.products, WARM) + 1, COLD)


class Curvature:
    """Takes turns between the Hessian scaled by the optimizer, the plain one, and its trace, so that each
    look costs few gradients: one where the weights are, and one a product (two, where the gradient jumps
    and it takes a second backward pass). The first look at an operator takes ten products; later ones begin
    at what the one before found, and take three while that is enough.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._tracked: dict[str, Tracked] = {}

    def take(self, loss: FlatLoss, root: torch.Tensor | None) -> tuple[str, dict[str, torch.Tensor]]:
        """The turn, and what it measured, on the device. `root` [n] is the root of the optimizer's scale;
        None where that is the identity, or not known."""
        turn = TURNS[self._looks % len(TURNS)]
        if root is None and turn == "scaled":
            turn = "plain"
        if turn != "scaled":
            root = None
        with loss.products() as products:
            measured = self._measure(turn, products, root)
        self._looks += 1
        assert loss.value is not None
        return turn, {**measured, "loss": loss.value}

    def _measure(self, turn: str, products: Products, root: torch.Tensor | None) -> dict[str, torch.Tensor]:
        here = products.here
        generator = torch.Generator(here.device).manual_seed(self._looks)
        if turn == "trace":
            return {"trace": _trace(products, generator)}
        tracked = self._tracked.get(turn)
        if tracked is None or tracked.start.numel() != here.numel():
            start = cold_start(here if root is None else root * here, generator)
            tracked = self._tracked[turn] = Tracked(start)
        start = tracked.start.to(here.device, here.dtype)
        scaled: Product = products if root is None else lambda vector: root * products(root * vector)
        krylov = lanczos(scaled, start, tracked.products)
        tracked.start = warm_start(krylov).bfloat16()  # where to begin need not be known to the last bit
        return {"projection": krylov.projection, "remainder": krylov.remainder}

    def read(self, turn: str, arrays: Arrays) -> dict[str, float]:
        """The statistics that `take` measured, from what came to the host."""
        if turn == "trace":
            return {"trace": float(arrays["trace"])}
        if not np.isfinite(arrays["projection"]).all():
            self._tracked.pop(turn, None)
            return {}
        found = ritz(arrays["projection"].astype(np.float64), float(arrays["remainder"]))
        largest = float(found.values[-1])
        size = abs(largest) or 1.0
        self._tracked[turn].learn(found.error(-1) / size)
        ends = {"residual": float(found.residuals[-1]) / size}
        if turn == "scaled":
            return ends | {"lambda_max_preconditioned": largest}
        return ends | {"lambda_max": largest, "lambda_min": float(found.values[0])}


def _trace(products: Products, generator: torch.Generator) -> torch.Tensor:
    """Hutchinson's estimate from three vectors of random signs."""
    here = products.here
    total = torch.zeros_like(here[0])
    for _ in range(WARM):
        signs = (
            torch.randint(0, 2, here.shape, generator=generator, device=here.device).to(here.dtype) * 2 - 1
        )
        total += torch.dot(signs, products(signs))
    return total / WARM
