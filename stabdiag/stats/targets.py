"""What a model is asked for, sample by sample, and what the best constant answer to it would cost."""

from __future__ import annotations

from typing import Protocol

import torch

ROWS = 256
ELEMENTS = 2**18
COLUMNS = 4096


def negative_log_likelihoods(logs: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    """Of log-probabilities [rows, classes, ...] and labels [rows, ...]: float32 of the labels' shape, NaN
    where the label is `ignored`."""
    counted = labels != ignored
    picked = logs.gather(1, labels.where(counted, 0).unsqueeze(1)).squeeze(1)
    return -picked.float().where(counted, torch.nan)


def predictions(logs: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    """[3, rows] of up to 256 evenly spaced rows of `logs`, [rows, classes]: the negative log-likelihood of
    the label, the entropy of the prediction (nats), and whether the likeliest class is the label's. NaN
    where it is `ignored`. Of many classes fewer rows are taken, 262,144 elements at most."""
    limit = max(1, min(ROWS, ELEMENTS // logs.shape[1]))
    stride = -(-logs.shape[0] // limit)
    rows, wanted = logs[::stride].float(), labels[::stride]
    entropy = -(rows.exp() * rows.clamp(min=torch.finfo(torch.float32).min)).sum(1)
    right = (rows.argmax(1) == wanted).float().where(wanted != ignored, torch.nan)
    return torch.stack([negative_log_likelihoods(rows, wanted, ignored), entropy, right])


class Constant(Protocol):
    """The best constant answer to the targets seen so far."""

    def add(self, targets: torch.Tensor) -> None: ...

    def costs(self) -> torch.Tensor:
        """[2] on the targets' device: the mean loss of that answer, and the number of targets seen."""

    def variety(self) -> torch.Tensor:
        """[] how much the targets differ: of labels the share of pairs that do (Simpson 1949), of values
        their variance. Both are right in the mean for a sample of any size from two on; NaN for one."""


class Frequencies:
    """Class labels: always answering with their frequencies costs the entropy of these (nats).

    The entropy of a histogram is too small by (classes seen - 1) / (2 labels) in the mean, which is put
    back (Miller 1955).
    """

    def __init__(self, classes: int, ignored: int) -> None:
        self._classes = classes
        self._ignored = ignored
        self._counts: torch.Tensor | None = None

    def add(self, targets: torch.Tensor) -> None:
        labels = targets.reshape(-1)
        if self._counts is None or self._counts.device != labels.device:
            self._counts = torch.zeros(self._classes + 1, dtype=torch.int64, device=labels.device)
        places = labels.where(labels != self._ignored, self._classes)  # those ignored are counted apart
        self._counts.scatter_add_(0, places, torch.ones_like(places))

    def costs(self) -> torch.Tensor:
        assert self._counts is not None
        counts = self._counts[:-1].float()
        seen = counts.sum()
        entropy = torch.special.entr(counts / seen).sum()
        return torch.stack([entropy + ((counts > 0).sum() - 1) / (2 * seen), seen])

    def variety(self) -> torch.Tensor:
        assert self._counts is not None
        counts = self._counts[:-1]  # whole numbers: not every device has float64
        seen = counts.sum()
        return (seen * seen - (counts * counts).sum()) / (seen * (seen - 1))


class Columns:
    """Targets of any number of columns: the answer is the mean of each column.

    Its squared error is the variance of the columns. Of targets in 0..1, as binary cross-entropy takes
    them, it costs the entropy of their means (nats).
    """

    def __init__(self, binary: bool) -> None:
        self._binary = binary
        self._mean: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None
        self._seen = 0

    def add(self, targets: torch.Tensor) -> None:
        rows = columns(targets)
        count, mean = rows.shape[0], rows.mean(0)
        squares = (rows - mean).square().sum(0)
        if self._mean is None or self._squares is None or self._mean.shape != mean.shape:
            self._mean, self._squares, self._seen = mean, squares, count
            return
        # Chan, Golub and LeVeque 1979: the moments of two parts make those of the whole.
        total, apart = self._seen + count, mean - self._mean
        self._mean = self._mean + apart * (count / total)
        self._squares = self._squares + squares + apart.square() * (self._seen * count / total)
        self._seen = total

    def costs(self) -> torch.Tensor:
        assert self._mean is not None
        assert self._squares is not None
        if self._binary:
            share = self._mean.clamp(0, 1)
            cost = (torch.special.entr(share) + torch.special.entr(1 - share)).mean()
        else:
            cost = (self._squares / max(self._seen - 1, 1)).mean()
        return torch.stack([cost, torch.full_like(cost, float(self._seen))])

    def variety(self) -> torch.Tensor:
        assert self._squares is not None
        return (self._squares / (self._seen - 1 or torch.nan)).mean()


def columns(values: torch.Tensor) -> torch.Tensor:
    """`values`, [rows, ...], as float32 [rows, columns]: of more than 4,096 columns evenly spaced ones."""
    flat = values.reshape(values.shape[0], -1) if values.dim() > 1 else values.reshape(-1, 1)
    return flat[:, :: -(-flat.shape[1] // COLUMNS)].float()
