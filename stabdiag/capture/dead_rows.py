"""Rows of weight matrices that have had no gradient for long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from stabdiag.capture.tensors import numbers
from stabdiag.stats.rows import silent_rows

DEAD_SAMPLES = 2048


class DeadRows:
    """For how many samples on end each row of each matrix has had a gradient of exact zeros.

    All matrices are looked at together: a step then costs a few operations, not a few a matrix.
    """

    def __init__(self) -> None:
        self._idle: dict[int, torch.Tensor] = {}

    def shares(self, gradients: Sequence[tuple[int, torch.Tensor]], samples: int) -> torch.Tensor:
        """The share of rows that were silent for 2,048 samples or more, after a step on `samples` more:
        float32 [gradients], of pairs of a number and a gradient [rows, ...], all on one device."""
        rows = [len(gradient) for _, gradient in gradients]
        silent = torch.cat([silent_rows(gradient) for _, gradient in gradients])
        before = [self._before(i, count, silent) for (i, _), count in zip(gradients, rows, strict=True)]
        idle = (torch.cat(before) + samples) * silent
        self._idle.update(zip((i for i, _ in gradients), torch.split(idle, rows), strict=True))
        ends = numbers([end - 1 for end in accumulate(rows)], idle.device, torch.int64)
        dead = (idle >= DEAD_SAMPLES).cumsum(0).index_select(0, ends)
        return torch.diff(dead, prepend=torch.zeros_like(dead[:1])) / numbers(rows, idle.device)

    def _before(self, index: int, rows: int, like: torch.Tensor) -> torch.Tensor:
        known = self._idle.get(index)
        if known is None or len(known) != rows or known.device != like.device:
            return torch.zeros(rows, device=like.device)
        return known
