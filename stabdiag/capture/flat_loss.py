"""A loss as a function of the weights of a module, side by side in one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stabdiag.capture.full_precision import full_precision
from stabdiag.capture.kinks import FUSED, KINKED, operations
from stabdiag.capture.replay import undone
from stabdiag.stats.hessian import DifferenceProducts, GraphProducts, flat
from stabdiag.stats.real import real

NARROW = (torch.float16, torch.bfloat16)


class FlatLoss:
    """`compute()` calls `module` and returns a scalar loss; `parameters` are those of the module that it is
    a function of. All others are constants.

    Weights are [n], in float64 where a parameter is, else in float32: where training computes in half
    precision, this does not. Of complex ones both parts of each count. Each evaluation begins with the same
    random numbers, buffers and attributes, and leaves none of them changed (`replay.undone`). The
    parameters themselves are neither written to, nor do they take part in the graph: hooks on them stay
    quiet, and `.grad` as it is.
    """

    def __init__(
        self, module: nn.Module, parameters: Sequence[torch.Tensor], compute: Callable[[], torch.Tensor]
    ) -> None:
        self._module = module
        self._parameters = parameters
        self._compute = compute
        wide = any(real(p.detach()).dtype == torch.float64 for p in parameters)
        self.dtype = torch.float64 if wide else torch.float32
        self.value: torch.Tensor | None = None
        """What it was at the weights as they are, 0-d."""

    @contextmanager
    def products(self) -> Iterator[DifferenceProducts | GraphProducts]:
        """Of its Hessian at the weights as they are. Where the gradient jumps, differences would measure the
        jumps, a hundredfold: there a second backward pass is taken, or RuntimeError raised where an operation
        has none."""
        weights = torch.cat([real(p.detach()).reshape(-1).to(self.dtype) for p in self._parameters])
        with self._at(weights) as leaves:
            loss = self._compute()
            self.value = loss.detach().reshape(()).to(self.dtype)
            kinds = operations(loss)
            if kinds & KINKED:
                if any(kind.startswith(FUSED) for kind in kinds):
                    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
                        loss = self._compute()
                yield GraphProducts(loss, leaves)
                return
            here = self._gradient(loss, leaves)
            del loss  # and its graph
        yield DifferenceProducts(self.gradient, weights, here)

    def evaluate(self) -> torch.Tensor:
        """The loss at the weights as they are, 0-d."""
        with undone(self._module), full_precision(), _eager():
            return self._compute().detach().reshape(()).to(self.dtype)

    def gradient(self, weights: torch.Tensor) -> torch.Tensor:
        """At `weights` [n]; zero where the loss does not depend on them."""
        with self._at(weights) as leaves:
            return self._gradient(self._compute(), leaves)

    def _gradient(self, loss: torch.Tensor, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
        return flat(torch.autograd.grad(loss, leaves, allow_unused=True), leaves)

    @contextmanager
    def _at(self, weights: torch.Tensor) -> Iterator[Sequence[torch.Tensor]]:
        """The module has these weights inside, which are the leaves of graphs."""
        parts = torch.split(weights, [real(p.detach()).numel() for p in self._parameters])
        leaves = [_leaf(part, p) for part, p in zip(parts, self._parameters, strict=True)]
        replacing = self._constants()
        replacing.update((id(p), leaf) for p, leaf in zip(self._parameters, leaves, strict=True))
        with undone(self._module, replacing), full_precision(), _eager():
            yield leaves

    def _constants(self) -> dict[int, torch.Tensor]:
        """What stands in for other parameters, which need no gradients here, and for narrow buffers."""
        constants = {}
        for tensor in (*self._module.parameters(), *self._module.buffers()):
            if isinstance(tensor, nn.Parameter) or tensor.dtype in NARROW:
                value = tensor.detach()
                constants[id(tensor)] = value.float() if tensor.dtype in NARROW else value
        return constants


def _leaf(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """What stands in for `parameter`, with these `values`, flat."""
    shaped = values.view(real(parameter.detach()).shape)
    # Not as a view: a part may begin at an odd place.
    whole = torch.complex(*shaped.unbind(-1)) if parameter.is_complex() else shaped
    return whole.to(torch.promote_types(parameter.dtype, torch.float32)).detach().requires_grad_()


@contextmanager
def _eager() -> Iterator[None]:
    """Compiled parts run as they were written: other weights would have them compiled once more."""
    if not hasattr(torch.compiler, "set_stance"):  # torch before 2.6
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
