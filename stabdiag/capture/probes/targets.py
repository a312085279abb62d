"""What the loss compares the model's answer with: each sample's loss, and that of a constant answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from stabdiag.capture.facts import LOSSES, NEAR
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row, under
from stabdiag.capture.saved_tensors import Node, kind, saved
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import dense
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.targets import (
    Columns,
    Constant,
    Frequencies,
    columns,
    negative_log_likelihoods,
    predictions,
)

MOST_SAMPLES = 4096
CLASSES = ("NllLoss", "NllLoss2D")
VALUES = ("MseLoss", "BinaryCrossEntropyWithLogits", "BinaryCrossEntropy")
ROBUST = ("SmoothL1Loss", "HuberLoss")
STATISTICS = (
    "loss", "spread", "max", "worst", "outlying", "surprise", "surprised", "agreement", "constant", "seen",
    "variety", "variety_seen", "rms",
)  # fmt: skip


class Asked(NamedTuple):
    """A loss as its node keeps it: what it compares, and the samples' own losses, [rows, ...]."""

    node: str
    answer: torch.Tensor
    targets: torch.Tensor
    ignored: int
    losses: torch.Tensor


@probe
class TargetsProbe(Probe):
    """Kind `targets`, one site, named as the event `loss` names the function.

    loss       mean loss of the targets, in the unit of that function, whatever the script made of it
    spread     standard deviation over the samples of the batch
    max        loss of the worst sample
    worst      its index in the batch, counted over micro-batches
    outlying   by how many robust deviations it lies above the batch's median sample
    surprise   mean over 256 rows of negative log-likelihood - entropy of the prediction (nats): 0 of a
               calibrated model, whatever the batch
    surprised  share of these rows where that is above 2 nats
    agreement  share of these rows whose likeliest class is the label's
    constant   loss of the best constant answer to all targets seen so far: entropy of the labels'
               frequencies, variance of values; in the standard tier
    seen       number of targets that this is known of
    variety    of the batch's targets, where each sample has one: the share of pairs of labels that differ,
               the variance of values; in the mean what all have where batches are drawn at random
    variety_seen  of all targets seen so far
    rms        of the batch's targets themselves, where they are values and not classes

    Read off the node nearest to the root of the loss's graph: cross-entropy, mean squared error, binary
    cross-entropy; smooth absolute and Huber error, without `constant`, which has no closed form for them.
    Of other functions, and where the graph keeps its tensors by hooks of the script's, there is none.
    """

    id = "targets"
    tier = Tier.FAST

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._site: tuple[Site, ...] = ()
        self._constant: Constant | None = None
        self._own: Constant | None = None
        self._one_each = False
        self._tier = Tier.NONE
        self._samples_before = 0
        self._taken: dict[str, torch.Tensor] = {}

    def arm(self, tier: Tier) -> None:
        self._tier = tier

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        samples, self._samples_before = (
            self.subject.samples - self._samples_before,
            self.subject.samples,
        )
        node = _nearest([root.grad_fn for root in roots])
        asked = None if node is None else _asked(node)
        if asked is None:
            return
        number = len(self._taken)
        self._taken[f"losses:{number}"] = _of_samples(asked.losses, samples)
        if asked.node == "NllLoss":
            self._taken[f"rows:{number}"] = predictions(asked.answer, asked.targets, asked.ignored)
        if not self._site:
            self._site = (Site("targets", LOSSES[asked.node]),)
        if asked.node not in CLASSES:
            self._taken[f"values:{number}"] = _squares(asked.targets)
        if self._tier >= Tier.STANDARD and asked.node not in ROBUST:
            self._constant = self._constant or _constant(asked)
            self._own = self._own or _constant(asked)
            for answer in (self._constant, self._own):
                answer.add(asked.targets)
            # Pixels and tokens of one sample are alike in any order.
            self._one_each = (
                asked.targets.numel() if asked.node in CLASSES else len(asked.targets)
            ) == samples

    def harvest(self) -> Harvest | None:
        taken, self._taken, self._samples_before = self._taken, {}, 0
        if not taken:
            return None
        own, self._own = self._own, None
        if self._tier >= Tier.STANDARD and self._constant is not None and own is not None:
            taken["constant"] = self._constant.costs()
            if self._one_each:
                taken["variety"] = torch.stack([own.variety(), self._constant.variety()])
        return Harvest(taken, self._finish)

    def _finish(self, arrays: Arrays, _scale: float) -> Measured:
        found = dict.fromkeys(STATISTICS, np.nan)
        losses = np.concatenate(list(under("losses:", arrays).values())).astype(np.float64)
        found |= _over_samples(losses)
        rows = list(under("rows:", arrays).values())
        if rows:
            loss, entropy, right = np.concatenate(rows, axis=1)
            known = ~np.isnan(loss)
            if known.any():
                excess = loss[known] - entropy[known]
                found["surprise"], found["surprised"] = float(excess.mean()), float((excess > 2).mean())
                found["agreement"] = float(right[known].mean())
        values = list(under("values:", arrays).values())
        if values:
            total, count = np.sum(np.stack(values).astype(np.float64), axis=0)
            found["rms"] = float(np.sqrt(total / count)) if count else np.nan
        if "constant" in arrays:
            found["constant"], found["seen"] = (float(value) for value in arrays["constant"])
        if "variety" in arrays:
            found["variety"], found["variety_seen"] = (float(value) for value in arrays["variety"])
        found["nonfinite"] = float(np.isinf(losses).any())
        columns = {name: np.array([value], np.float32) for name, value in found.items()}
        return Measured([Row("targets", self._site, columns)])


def _constant(asked: Asked) -> Constant:
    if asked.node in CLASSES:
        return Frequencies(asked.answer.shape[1], asked.ignored)
    return Columns(asked.node != "MseLoss")


def _squares(targets: torch.Tensor) -> torch.Tensor:
    """Sum of the squares of the finite ones, and how many they are; of 4,096 columns at most."""
    values = columns(targets)
    finite = values.isfinite()
    total = torch.where(finite, values, 0.0).square().sum()
    return torch.stack([total, finite.sum().to(total.dtype)])


def _over_samples(losses: np.ndarray[Any, Any]) -> Mapping[str, float]:
    known = losses[~np.isnan(losses)]
    if not len(known):
        return {}
    worst = int(np.nanargmax(losses))
    middle = float(np.median(known))
    scale = 1.4826 * float(np.median(np.abs(known - middle)))
    return {
        "loss": float(known.mean()),
        "spread": float(known.std()),
        "max": float(losses[worst]),
        "worst": float(worst),
        "outlying": (float(losses[worst]) - middle) / scale if scale > 0 else np.nan,
    }


def _nearest(front: list[Any]) -> Node | None:
    """The loss function's node nearest to the root of a graph."""
    for _ in range(NEAR):
        if not front:
            return None
        node = front.pop(0)
        if node is None:
            continue
        if kind(node) in (*CLASSES, *VALUES, *ROBUST):
            return node
        front.extend(child for child, _ in node.next_functions)
    return None


def _asked(node: Node) -> Asked | None:
    name, answer, targets = kind(node), saved(node, "self"), saved(node, "target")
    if answer is None or targets is None or not (dense(answer) and dense(targets)):
        return None
    if not answer.numel() or not answer.dim() or type(answer) is not torch.Tensor:
        return None
    if name in CLASSES:
        ignored = int(saved(node, "ignore_index"))
        ignored -= 2**64 if ignored >= 2**63 else 0  # the node keeps it without a sign
        if answer.dim() < 2:
            answer, targets = answer[None], targets[None]
        return Asked(name, answer, targets, ignored, negative_log_likelihoods(answer, targets, ignored))
    answers, wanted = columns(answer), columns(targets)
    if answers.shape != wanted.shape:
        return None
    losses = {
        "MseLoss": lambda: (answers - wanted).square(),
        "BinaryCrossEntropy": lambda: torch.nn.functional.binary_cross_entropy(
            answers, wanted, reduction="none"
        ),
        "BinaryCrossEntropyWithLogits": lambda: torch.nn.functional.binary_cross_entropy_with_logits(
            answers, wanted, reduction="none"
        ),
        "SmoothL1Loss": lambda: torch.nn.functional.smooth_l1_loss(
            answers, wanted, reduction="none", beta=float(saved(node, "beta"))
        ),
        "HuberLoss": lambda: torch.nn.functional.huber_loss(
            answers, wanted, reduction="none", delta=float(saved(node, "delta"))
        ),
    }[name]()
    return Asked(name, answer, targets, -100, losses)


def _of_samples(losses: torch.Tensor, samples: int) -> torch.Tensor:
    """The mean loss of each of `samples`, where the rows can be dealt out evenly; 4,096 at most."""
    if losses.dim() == 1 and samples > 0 and losses.shape[0] % samples == 0:
        losses = losses.view(samples, -1)
    means = losses.flatten(1).nanmean(1) if losses.dim() > 1 else losses
    return means[:: -(-means.shape[0] // MOST_SAMPLES)]
