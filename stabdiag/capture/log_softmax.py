"""The log-softmax of a loss in its autograd graph, and which module computed the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

NODES = 64
WHOLE, SUM = "LogSoftmax", "Logsumexp"
PASSED_ON = (
    "View", "UnsafeView", "ReshapeAlias", "Slice", "Select", "Transpose", "Permute", "T", "Clone", "ToCopy",
    "Squeeze", "Unsqueeze", "Alias", "Index", "AsStrided", "Expand",
)  # fmt: skip


Made = TypeVar("Made")


class LogSoftmax(NamedTuple):
    """`node` of the graph, and what `uses` its result; None where that is the loss itself. Of a loss that is
    written out, the log-sum-exp stands for it."""

    node: Any
    uses: Any

    @property
    def written_out(self) -> bool:
        return kind_of(self.node) == SUM

    @property
    def dim(self) -> int:
        dim = self.node._saved_dim
        return int(dim[-1] if self.written_out else dim)

    @property
    def below(self) -> Any:
        """What made the logits, or passed them on."""
        return self.node.next_functions[0][0]


def log_softmaxes(roots: Sequence[Any]) -> list[LogSoftmax]:
    """Those near the roots of a graph; no saved tensor is touched.

    Log-sum-exps only where there is no log-softmax: beside one they belong to a penalty on other scores.
    """
    front: list[tuple[Any, Any]] = [(root, None) for root in roots]
    found: dict[str, list[LogSoftmax]] = {WHOLE: [], SUM: []}
    visited = 0
    while front and visited < NODES:
        node, uses = front.pop(0)
        visited += 1
        if node is None:
            continue
        if kind_of(node) in found:
            found[kind_of(node)].append(LogSoftmax(node, uses))
        else:
            front.extend((child, node) for child, _ in node.next_functions)
    return found[WHOLE] or found[SUM]


def source(node: Any, made: Mapping[int, Made]) -> Made | None:
    """What `made`, by the id of its node, has for the tensor that `node` only passes on."""
    for _ in range(NODES):
        if node is None:
            return None
        if id(node) in made:
            return made[id(node)]
        if kind_of(node) not in PASSED_ON:
            return None
        node = node.next_functions[0][0]
    return None


def kind_of(node: Any) -> str:
    """Its class without the number of the overload: `NllLoss` for `NllLossBackward0`."""
    return type(node).__name__.rstrip("0123456789").removesuffix("Backward")
