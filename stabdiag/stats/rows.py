"""Rows of a gradient that receive nothing: units that no sample activates."""

from __future__ import annotations

import torch


def silent_rows(gradient: torch.Tensor) -> torch.Tensor:
    """Which rows (first dimension of two or more) hold nothing but exact zeros: bool [rows].

    A unit whose activation is dead for a whole batch passes no gradient to the row of weights that
    feeds it, whatever the activation is called and wherever it stands. The sum of magnitudes is the
    cheapest reduction that no underflow can fool.
    """
    magnitude = gradient.abs()
    return (magnitude if gradient.dim() == 2 else magnitude.flatten(1)).sum(1) == 0
