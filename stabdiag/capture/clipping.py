"""The moment just before gradients are clipped by their global norm."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.nn import utils
from torch.nn.utils import clip_grad

from stabdiag.capture.patch import Patch

WIDE = (torch.float32, torch.float64)  # of narrower gradients torch takes narrower norms
MOST_CALLS = 8  # one a device and dtype


class Clip(NamedTuple):
    """The gradients of `parameters` are about to be scaled by min(1, max_norm / (total + 1e-6)).

    `total` is a 0-d tensor, still on its device, and so are `norms()`: of each gradient, where torch has
    taken it on the way to the total, else None. `stacked` are what torch has put together to take the
    total of: the norms of the gradients that there are, in order; None where it has not.
    """

    parameters: Sequence[torch.Tensor]
    max_norm: float
    total: torch.Tensor
    norms: Callable[[], Sequence[torch.Tensor | None]]
    stacked: torch.Tensor | None = None


class ClippingObserver:
    """Calls `tell(clip)` before `clip_grad_norm_` scales the gradients; to the norm that it
    returns, where that is not None.

    It takes the place of the inner function that scales, so that `error_if_nonfinite`, raised before,
    has no frame of ours. Code that torch.compile traces is left alone.
    """

    def __init__(self, tell: Callable[[Clip], float | None]) -> None:
        norms = _Norms()

        def observe(
            parameters: torch.Tensor | Iterable[torch.Tensor],
            max_norm: float,
            total_norm: torch.Tensor,
            foreach: bool | None = None,
        ) -> None:
            listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
            if not torch.compiler.is_compiling():
                clip = Clip(listed, max_norm, total_norm, lambda: norms.of_gradients(listed), norms.stacked)
                limit = tell(clip)
                max_norm = max_norm if limit is None else limit
                norms.forget()
            scale.original(listed, max_norm, total_norm, foreach)

        scale = Patch(clip_grad, "_clip_grads_with_norm_", observe)
        self._patches = [
            scale,
            Patch(utils, "clip_grads_with_norm_", observe),  # its public name
            Patch(clip_grad, "torch", norms),
        ]

    def remove(self) -> None:
        for patch in self._patches:
            patch.remove()


class _Norms(ModuleType):
    """Stands in for `torch` in the module that clips, and remembers the norms that it takes: to read all
    gradients once more would be the dearest part of knowing them."""

    def __init__(self) -> None:
        super().__init__(torch.__name__)
        self._calls: deque[tuple[list[weakref.ref[torch.Tensor]], list[int], Sequence[torch.Tensor]]] = deque(
            maxlen=MOST_CALLS
        )
        self.stacked: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def _foreach_norm(self, tensors: list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        norms = torch._foreach_norm(tensors, *args, **kwargs)
        if not torch.compiler.is_compiling() and args == (2.0,) and tensors[0].dtype in WIDE:
            references = [weakref.ref(tensor) for tensor in tensors]
            self._calls.append((references, [tensor._version for tensor in tensors], norms))
        return norms

    def stack(self, tensors: list[torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        stacked = torch.stack(tensors, *args, **kwargs)
        # Of several devices or types they would be in another order than the parameters.
        alone = len(self._calls) == 1 and len(self._calls[0][2]) == len(tensors)
        self.stacked = stacked if alone and not torch.compiler.is_compiling() else None
        return stacked

    def of_gradients(self, parameters: Iterable[torch.Tensor]) -> list[torch.Tensor | None]:
        """Norms of those gradients that are what they were when they were taken."""
        taken = {
            id(tensor): norm
            for references, versions, norms in self._calls
            for reference, version, norm in zip(references, versions, norms, strict=True)
            if (tensor := reference()) is not None
            and type(tensor) is torch.Tensor
            and tensor._version == version
        }
        return [taken.get(id(parameter.grad)) for parameter in parameters]

    def forget(self) -> None:
        self._calls.clear()
        self.stacked = None
