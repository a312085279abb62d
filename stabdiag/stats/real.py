"""Complex numbers as pairs of real ones: what torch's optimizers take them for."""

from __future__ import annotations

import torch


def real(tensor: torch.Tensor) -> torch.Tensor:
    """A complex tensor as pairs of real numbers, [..., 2], a view of it where it is not conjugate; any other
    as it is. The gradient of a real loss, seen like that, is that by both parts."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
