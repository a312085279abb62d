"""How far the units of a bounded activation are on the flat ends of their curve."""

from __future__ import annotations

import torch

STATISTICS = ("share", "units")
ROWS, UNITS = 256, 1024
FLAT = 0.01
"""Share of its steepest slope below which a curve counts as flat."""


def saturation(result: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Of the results of a sigmoid (bounds 0 and 1) or a tanh (-1 and 1): float32 [2] on their device.

    share  of elements at which the slope is below a hundredth of the steepest, (y - low)(high - y) of it
    units  share of units at which that holds for more than half of the rows

    Units are the last dimension, of images the second. Up to 256 rows and 1,024 units, evenly spaced.
    """
    rows = result.detach()
    rows = rows.movedim(1, -1) if rows.dim() == 4 else rows
    rows = rows.reshape(-1, rows.shape[-1]) if rows.dim() else rows.reshape(1, 1)
    rows = rows[:: -(-rows.shape[0] // ROWS), :: -(-rows.shape[1] // UNITS)].to(torch.float32)
    steepest = ((high - low) / 2) ** 2
    flat = ((rows - low) * (high - rows) < FLAT * steepest).to(torch.float32)
    return torch.stack([flat.mean(), (flat.mean(0) > 0.5).to(torch.float32).mean()])
