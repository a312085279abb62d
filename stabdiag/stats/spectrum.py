"""Starting points for `lanczos`, without waiting for the device."""

from __future__ import annotations

import torch

from stabdiag.stats.lanczos import Krylov

SQUARINGS = 12
OTHER_END = 0.3


def cold_start(gradient: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A vector [n] where nothing is known: the gradient, which lies mostly along steep directions, each
    coordinate of it times 1 + N(0, 1), and a little of all directions."""
    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device, dtype=gradient.dtype)
    return _unit(gradient * (1 + noise)) + _unit(noise)


def warm_start(krylov: Krylov) -> torch.Tensor:
    """A vector [n] from which the next, similar operator is searched: the Ritz vector of the largest value,
    and some of that of the smallest, so that both ends are followed."""
    projection = (krylov.projection + krylov.projection.T) / 2
    upper, lower = _leading(projection), _leading(-projection)
    return _unit((upper + OTHER_END * lower) @ krylov.basis)


def _leading(matrix: torch.Tensor) -> torch.Tensor:
    """The unit vector [k] of the largest eigenvalue: the matrix is shifted, so that all of them are positive,
    and squared until one direction is left."""
    power = matrix + matrix.norm() * torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    for _ in range(SQUARINGS):
        power = power / power.norm().clamp(min=torch.finfo(power.dtype).tiny)
        power = power @ power
    column = power.diagonal().argmax().reshape(1)
    return _unit(power.index_select(1, column).squeeze(1))


def _unit(vector: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = vector / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)
    return unit
