"""Both ends of the spectrum of a symmetric operator, from few products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Product = Callable[[torch.Tensor], torch.Tensor]
Matrix = NDArray[np.float64]
VANISHED = 1e-5


@dataclass(frozen=True)
class Krylov:
    """An orthonormal `basis` [k, n] of a Krylov space, the `projection` [k, k] of the operator on it (row i,
    column j: basis[i] · A basis[j]), and the norm `remainder` [] of the part of A basis[k-1] outside of it.
    All on the device of the start vector; nothing was waited for."""

    basis: torch.Tensor
    projection: torch.Tensor
    remainder: torch.Tensor


def lanczos(product: Product, start: torch.Tensor, products: int) -> Krylov:
    """The Krylov space of `product` from the vector `start` [n], with so many products (at most n).

    Each new direction is made orthogonal to all others twice: products that are themselves approximate,
    as finite differences are, would otherwise find the largest eigenvalue again and again.
    """
    products = min(products, start.numel())
    tiny = torch.finfo(start.dtype).tiny
    basis = start.new_zeros(products, start.numel())
    projection = start.new_zeros(products, products)
    remainder = start.new_zeros(())
    basis[0] = start / start.norm().clamp(min=tiny)
    for j in range(products):
        image = product(basis[j])
        known = basis[: j + 1]
        for _ in range(2):
            along = known @ image
            image = image - along @ known
            projection[: j + 1, j] += along
        remainder = image.norm()
        if j + 1 < products:
            projection[j + 1, j] = remainder
            basis[j + 1] = image / remainder.clamp(min=tiny)
    return Krylov(basis, projection, remainder)


@dataclass(frozen=True)
class Ritz:
    """Approximate eigenvalues, ascending: `values` [m], with the coefficients `vectors` [m, m] of their
    vectors in the basis (a column each), and `residuals` [m]: ‖A y − θ y‖ of each unit vector y, in the
    units of the eigenvalues. An eigenvalue lies within its residual.

    m is less than k where the space was invariant before. The extreme values lie inside the spectrum.
    """

    values: Matrix
    vectors: Matrix
    residuals: Matrix

    def error(self, index: int) -> float:
        """Estimated error of the extreme value `index` (0 or -1), in the units of the eigenvalues: the
        residual, or its square over the distance to the next value, which is the smaller one where the
        values are apart."""
        residual = float(self.residuals[index])
        if len(self.values) < 2:
            return residual
        gap = abs(float(self.values[index] - self.values[1 if index == 0 else -2]))
        return min(residual, residual**2 / gap) if gap > 0 else residual


def ritz(projection: Matrix, remainder: float) -> Ritz:
    """Of a `Krylov.projection` and its `remainder`, on the host. The asymmetry that approximate products
    leave in the projection counts in the residuals."""
    projection = np.asarray(projection, np.float64)
    below = np.diagonal(projection, -1)
    scale = np.abs(projection).max()
    vanished = np.flatnonzero(np.abs(below) <= VANISHED * scale)
    size = int(vanished[0]) + 1 if vanished.size else len(projection)
    rest = float(below[size - 1]) if size < len(projection) else float(remainder)
    projection = projection[:size, :size]
    values, vectors = np.linalg.eigh((projection + projection.T) / 2)
    inside = projection @ vectors - vectors * values
    residuals = np.sqrt((inside**2).sum(0) + (rest * vectors[-1]) ** 2)
    return Ritz(values, vectors, residuals)
