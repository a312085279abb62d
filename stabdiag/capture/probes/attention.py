"""How widely attention is spread, and how large its logits are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stabdiag.capture.attention_calls import AttentionCall, attention_call
from stabdiag.capture.attention_sites import AttentionSites
from stabdiag.capture.graph_probe import GraphProbe
from stabdiag.capture.probe import probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.saved_tensors import Node, kind
from stabdiag.capture.subject import Subject
from stabdiag.core.tier import Tier
from stabdiag.stats.attention import merge, statistics

MOST_CALLS = 32
FLEX = "flex_attention"
FLEX_SCORES = "its scores pass through functions of the script, and its kernel keeps none of them"


@probe
class AttentionProbe(GraphProbe[AttentionCall]):
    """Kind `attention`: one site for the module in which attention is computed, `<module>[h3]` for each head.

        entropy          nats, mean over the rows that may see more than one key
        entropy_ratio    mean over these of the entropy over ln(keys that the row may see): 1 is uniform
        entropy_rest     nats, of the weights of all keys but the first, which often is a sink
        max_logit        largest scale · q·k of a key that is seen, before additive biases; that of the rows
                         that were looked at, so at most the true one
        max_logit_upper  no logit is larger, by the log-sum-exp or by the norms of queries and keys
        exact            1 where the entropy is of all rows of the items taken, 0 where of a sample of rows
        nonfinite        calls with a logit that is not a finite number

    Of each batch a sixteenth of the items, at least one, is taken for the entropy, others at the next step;
    for the logits all items. Entropies of a layer are the means of its heads, its logit is the largest.
    Dropout does not count. Rows that see no key or one are left out. Up to 64 heads of a module have sites,
    and of calls of a module in one step the first 32 count.
    """

    id = "attention"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._sites = AttentionSites()
        self._turn = 0
        self._flex_told = False
        self._counts: Counter[str] = Counter()
        self._rows: dict[torch.device, list[torch.Tensor]] = {}
        self._heads: dict[torch.device, list[int]] = {}

    def recognise(self, node: Node) -> AttentionCall | None:
        if not self._flex_told and kind(node).startswith("FlexAttention"):
            self._flex_told = True
            self.subject.event("coverage", what=FLEX, because=FLEX_SCORES)
        return attention_call(node)

    def found(self, name: str, module: nn.Module, what: AttentionCall) -> None:
        self._counts[name] += 1
        if self._counts[name] > MOST_CALLS:
            return
        call = what.within(module)
        rows = call.measure(self._turn)
        heads = self._sites.heads_of(name, module, call, self.subject.order.get(name, -1))
        self._rows.setdefault(rows.device, []).append(rows)
        self._heads.setdefault(rows.device, []).extend(heads)

    def harvest(self) -> Harvest:
        self.disarm()
        self._turn += 1
        self._counts.clear()
        tensors = {str(device): torch.cat(rows) for device, rows in self._rows.items()}
        heads = {str(device): np.array(numbers, np.int64) for device, numbers in self._heads.items()}
        self._rows.clear()
        self._heads.clear()
        return Harvest(tensors, partial(self._finish, heads))

    def _finish(self, heads: Mapping[str, NDArray[np.int64]], arrays: Arrays, _scale: float) -> Measured:
        if not heads:
            return Measured()
        numbers = np.concatenate([heads[device] for device in arrays])
        rows = np.concatenate([arrays[device] for device in arrays])
        measured = statistics(merge(numbers, rows, self._sites.heads))
        return Measured([Row("attention", tuple(self._sites.sites), self._sites.columns(measured))])
