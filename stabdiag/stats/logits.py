"""The scale of a model's predictions."""

from __future__ import annotations

import torch

STATISTICS = ("log_z", "mean", "max", "entropy")
ROWS = 256
ELEMENTS = 2**21


def logit_statistics(logits: torch.Tensor, classes: int) -> torch.Tensor:
    """Of `logits`, whose dimension `classes` is that of the softmax: float32 [4] on its device.

    log_z    mean over rows of the log of the partition function, log sum exp (nats)
    mean     mean logit
    max      largest logit of these rows
    entropy  mean over rows of the entropy of the softmax (nats)

    Of many rows evenly spaced ones are taken, 256 at most and two million elements at most.
    """
    rows = logits.detach().movedim(classes, -1)
    rows = rows.reshape(-1, rows.shape[-1])
    limit = max(1, min(ROWS, ELEMENTS // rows.shape[1]))
    rows = rows[:: -(-rows.shape[0] // limit)].to(torch.float32)
    logs = torch.log_softmax(rows, 1)
    log_z = rows.amax(1) - logs.amax(1)
    entropy = -(logs.exp() * logs.clamp(min=torch.finfo(torch.float32).min)).sum(1)
    return torch.stack([log_z.mean(), rows.mean(), rows.max(), entropy.mean()])
