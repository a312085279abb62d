from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from stabdiag.intervene.forward import Forward


@intervention(
    "shrink-embedding-gradient",
    title="Shrink the gradient of the embedding",
    takes=Value("factor of the gradient", above=0, most=1, default=0.1),
    advice=("embedding_gradient",),
)
class ShrinkEmbeddingGradient(Intervention):
    """Multiplies the gradient with respect to the output of each `torch.nn.Embedding`, which is what
    e = α·e + (1 - α)·e.detach() does (GLM-130B, arXiv 2210.02414). A weight that is tied to the head keeps
    what comes from there. Modules inside torch.compile take no hooks, and are left as they are."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._handles: dict[str, RemovableHandle] = {}

    def on_forward(self, forward: Forward) -> None:
        from torch.nn import Embedding

        from stabdiag.capture.hooks import on_forward

        tables = {name: m for name, m in forward.subject.modules.items() if isinstance(m, Embedding)}
        for name in tables.keys() - self._handles.keys():
            self._handles[name] = on_forward(tables[name], partial(self._on_output, forward))
            forward.count("set", where=name)
        if not tables:
            forward.cannot("no torch.nn.Embedding is in reach")

    def _on_output(self, forward: Forward, _module: nn.Module, _args: Any, output: Any) -> None:
        if output.requires_grad and output.grad_fn is not None:
            forward.guard(self._shrink, output)

    def _shrink(self, output: Any) -> None:
        output.register_hook(self._shrunk)

    def _shrunk(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self.value

    def end(self) -> None:
        for handle in self._handles.values():
            handle.remove()
