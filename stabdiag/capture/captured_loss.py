"""The loss of a training step, kept so that it can be computed again from other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from stabdiag.capture.autograd_nodes import Unreadable
from stabdiag.capture.call import Call
from stabdiag.capture.losstail import LossTail
from stabdiag.capture.tensors import tensors_in


class CapturedLoss:
    """The last call of the model before a backward pass, and what the script made of its outputs.

    `call`, `outputs` and `loss` are told of in that order; `because` says why there is nothing to compute,
    as long as there is not.
    """

    def __init__(self) -> None:
        self.because: str | None = "no call of the model was seen before its backward pass"
        self.passes = 0
        """Backward passes so far: micro-batches."""
        self.value: torch.Tensor | None = None
        """What the script got, 0-d: without the scaler's factor."""
        self.call: Call | None = None
        self._outputs: list[torch.Tensor] = []
        self._tail: LossTail | None = None
        self._scale: torch.Tensor | None = None

    def note_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.call, self._outputs, self._tail = Call(module, args, kwargs), [], None

    def note_outputs(self, output: Any) -> None:
        self._outputs = [tensor for _, tensor in tensors_in(output)]

    def note_loss(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        """The graph is read here: it must be alive."""
        self.passes += 1
        self._scale = None if scale is None else scale.detach().clone()  # update() changes it in place
        if self.call is None or not self._outputs:
            return
        if len(roots) != 1 or roots[0].numel() != 1 or roots[0].is_complex():
            self.because = "the backward pass does not begin at one number"
            return
        try:
            self._tail = LossTail(roots[0], self._outputs)
        except Unreadable as unreadable:
            self.because = f"the loss cannot be computed again: {unreadable}"
        else:
            computed = "an input of the model was computed from other parameters"
            self.because = computed if self.call.inputs_are_computed else self.call.refusal
            self.value = self._unscaled(roots[0].detach().reshape(()))
        self._outputs = []

    def _unscaled(self, loss: torch.Tensor) -> torch.Tensor:
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
        return loss if self._scale is None else loss / self._scale.to(loss.device)

    @property
    def narrow(self) -> bool:
        """Whether the script computed it in half precision, and a replay in float32 gives another value."""
        assert self.call is not None
        tensors = (*self.call.module.parameters(), *self.call.module.buffers())
        half = any(t.is_floating_point() and t.element_size() < 4 for t in tensors)
        return bool(self.call.autocast) or half

    def again(self) -> Callable[[], torch.Tensor]:
        """A function that computes it, to be called inside `undone`."""
        call, tail = self.call, self._tail
        assert call is not None
        assert tail is not None
        cast = torch.float32 if self.narrow else None

        def compute() -> torch.Tensor:
            outputs = [tensor for _, tensor in tensors_in(call(cast))]
            return self._unscaled(tail(outputs))

        return compute
