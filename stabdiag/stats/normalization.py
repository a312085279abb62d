"""What a normalization layer does to a batch, and would do in evaluation."""

from __future__ import annotations

import torch

from stabdiag.stats.sample import stride_of

STATISTICS = ("mismatch", "variance_ratio", "headroom")
VALUES, ROWS = 1024, 64


def batch_statistics(
    batch: torch.Tensor, mean: torch.Tensor | None, variance: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Of a batch normalization's input [items, channels, …], and its running statistics [channels]: float32
    [3] on its device, each the median over channels. Of many values a channel about 1,024 are taken, or a
    few thousand.

    mismatch        root mean square difference between an output as training makes it, from the
                    statistics of the batch, and as evaluation would, from the running ones, in standard
                    deviations of the former: sqrt((sigma/s - 1)^2 + ((mu - m)/s)^2)
    variance_ratio  running variance over that of the batch
    headroom        variance of the batch over eps
    """
    items = batch.detach().flatten(2) if batch.dim() > 2 else batch.detach()[:, :, None]
    # Odd strides, so that they do not lock onto one column of the images.
    items = items[:: stride_of(items.shape[0], VALUES)]
    items = items[:, :, :: stride_of(items.shape[2], max(VALUES // items.shape[0], 1))].to(torch.float32)
    spread, middle = torch.var_mean(items, (0, 2), correction=0)
    nothing = spread.new_full((), float("nan"))
    headroom = spread.median() / eps
    if mean is None or variance is None:
        return torch.stack([nothing, nothing, headroom])
    running = variance.detach().to(torch.float32) + eps
    stretch = ((spread + eps) / running).sqrt()
    shift = (middle - mean.detach().to(torch.float32)) / running.sqrt()
    mismatch = ((stretch - 1).square() + shift.square()).sqrt()
    return torch.stack([mismatch.median(), stretch.square().reciprocal().median(), headroom])


def unevenness(gain: torch.Tensor) -> torch.Tensor:
    """Largest absolute value of a gain over its root mean square: 1 where all are alike, as fresh ones are;
    0-d float32 on its device."""
    gain = gain.detach().to(torch.float32)
    return gain.abs().max() / gain.square().mean().sqrt()


def row_headroom(rows: torch.Tensor, dims: int, eps: float, *, centred: bool) -> torch.Tensor:
    """Of a layer normalization's input, which it normalizes over the last `dims`: variance (mean square, if
    not `centred`) over eps, the median over up to 64 rows; 0-d float32 on its device."""
    rows = rows.detach().flatten(-dims).reshape(-1, rows.shape[-dims:].numel())
    rows = rows[:: -(-rows.shape[0] // ROWS)].to(torch.float32)
    if centred:  # torch's own variance takes ten times as long
        rows = rows - rows.mean(1, keepdim=True)
    return rows.square().mean(1).median() / eps
