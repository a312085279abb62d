"""The loss as a function of what the model returned, read off the autograd graph between the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from stabdiag.capture.autograd_nodes import FORWARDS, Node, Unreadable, forward_of

MOST = 200
SUMS = ("Add", "Sub", "Rsub")
Seen = Callable[[], "torch.Tensor | None"]


class LossTail:
    """`loss = tail(outputs)`, of the tensors that `outputs` were when it was read.

    Reads the graph while it is alive: after the loss was computed, before its backward pass. Holds what the
    graph has saved of targets and weights. Raises Unreadable, with the reason, for what it does not know, and
    for a loss that depends on parameters by other ways than the outputs. A model that returns the loss itself
    has no tail.
    """

    def __init__(self, loss: torch.Tensor, outputs: Sequence[torch.Tensor]) -> None:
        self._operations: list[tuple[Callable[..., torch.Tensor], tuple[int, ...]]] = []
        self._observed: list[torch.Tensor | None] = []
        self._places: dict[tuple[Any, int], int] = {}
        self.arguments: list[int] = []
        """Which of `outputs` the loss depends on."""
        for position, output in enumerate(outputs):
            if output.grad_fn is not None:
                self._places[output.grad_fn, output.output_nr] = -1 - position
        self._outputs = outputs
        if loss.grad_fn is None:
            raise Unreadable("it needs no gradients")
        self._result = self._read((loss.grad_fn, loss.output_nr), loss.detach)
        self.length = len(self._operations)
        self._observed.clear()
        self._places.clear()
        self._outputs = ()
        if not self.arguments:
            raise Unreadable("it does not depend on what the model returned")

    def __call__(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        values: list[torch.Tensor] = []
        for function, operands in self._operations:
            values.append(function(*(values[i] if i >= 0 else outputs[-1 - i] for i in operands)))
        return values[self._result] if self._result >= 0 else outputs[-1 - self._result]

    def _read(self, edge: tuple[Any, int], seen: Seen) -> int:
        """The place of the value at the end of `edge`; `seen` tells that value, where somebody kept it."""
        place = self._places.get(edge)
        if place is None:
            place = self._places[edge] = self._read_node(Node(edge[0]), seen)
        elif place < 0 and -1 - place not in self.arguments:
            self.arguments.append(-1 - place)
        return place

    def _read_node(self, node: Node, seen: Seen) -> int:
        if node.function.name() == "torch::autograd::AccumulateGrad":
            raise Unreadable("it depends on a parameter by another way than the output")
        if node.kind not in FORWARDS and node.kind not in SUMS:
            raise Unreadable(f"it passes through {node.function.name()}, which is not known here")
        if len(self._places) > MOST:
            raise Unreadable(f"more than {MOST} operations lie between it and the output")
        given = tuple(function is not None for function, _ in node.edges)
        if node.kind in SUMS:
            function, operands = self._read_sum(node, given, seen)
        else:
            edges = [(i, edge) for i, edge in enumerate(node.edges) if edge[0] is not None]
            operands = tuple(self._read(edge, partial(_kept, node, i, seen)) for i, edge in edges)
            function = forward_of(node, given)
        self._operations.append((function, operands))
        self._observed.append(None)
        return len(self._operations) - 1

    def _read_sum(
        self, node: Node, given: tuple[bool, ...], seen: Seen
    ) -> tuple[Callable[..., torch.Tensor], tuple[int, ...]]:
        """Sums do not save their terms. One that needs no gradients is the sum less the other."""
        alpha = node.saved("alpha")
        first, second = {"Add": (1, alpha), "Sub": (1, -alpha), "Rsub": (-alpha, 1)}[node.kind]
        if all(given) and len(given) == 2:
            right = self._read(node.edges[1], lambda: None)

            def left() -> torch.Tensor | None:
                total = seen()
                return None if total is None else (total - second * self._value(right)) / first

            return (lambda a, b: first * a + second * b), (self._read(node.edges[0], left), right)
        position = given.index(True)
        sign = (first, second)[position]
        place = self._read(node.edges[position], partial(_kept, node, position, seen))
        total = seen()
        if total is None:
            raise Unreadable(f"a term of {node.function.name()} is not kept")
        constant = total.detach() - sign * self._value(place)
        return (lambda x: constant + sign * x), (place,)

    def _value(self, place: int) -> torch.Tensor:
        """What was at `place` when the script computed its loss."""
        if place < 0:
            return self._outputs[-1 - place].detach()
        value = self._observed[place]
        if value is None:
            function, operands = self._operations[place]
            value = self._observed[place] = function(*(self._value(i) for i in operands))
        return value


def _kept(node: Node, position: int, seen: Seen) -> torch.Tensor | None:
    """What the operand number `position` of `node` was: saved by it, or told by what it made of it."""
    value = node.saved("self" if position == 0 else "other")
    if isinstance(value, torch.Tensor):
        return value
    factor = node.saved("other") if position == 0 and node.kind in ("Mul", "Div") else None
    total = None if factor is None else seen()
    if total is None or factor is None:
        return None
    operand: torch.Tensor = total / factor if node.kind == "Mul" else total * factor
    return operand
