from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from stabdiag.capture.log_softmax import LogSoftmax
    from stabdiag.intervene.forward import Forward

HELD = 8
"""Outputs that may wait for their backward pass."""

MOST_SEARCHES = 4
"""Backward passes in which the logits are looked for; until then the outputs of all modules are held."""


@intervention(
    "z-loss",
    title="Hold the logits near zero by a z-loss",
    takes=Value("coefficient of the mean of log² Z", above=0, default=1e-4),
    advice=("z_loss",),
)
class ZLoss(Intervention):
    """Adds the gradient of VALUE · mean(log² Z) to that of the logits, where Z is the sum of exp(logits) of a
    row: what a loss with that term in it would have given, scaled as the script scales its cross-entropy
    (PaLM, arXiv 2204.02311). The mean is over all rows of the module whose output goes into the log-softmax
    of the loss; the loss that the script prints stays without it."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._handles: dict[str, RemovableHandle] = {}
        self._known: dict[str, int] = {}
        self._outputs: deque[tuple[str, torch.Tensor]] = deque(maxlen=HELD)
        self._seen: list[tuple[str, torch.Tensor]] = []
        self._searches = 0

    def on_forward(self, forward: Forward) -> None:
        from stabdiag.capture.hooks import on_forward

        subject = forward.subject
        called = {prefix: wrapper for prefix, (_, wrapper) in subject.entries.items()}
        modules = {**called, **subject.modules}  # of what torch.compile runs, the wrapper alone
        wanted = {n for n in modules if not self._known or n in self._known}
        if self._searches == MOST_SEARCHES:
            wanted = set(self._known)
        for name in self._handles.keys() - wanted:
            self._handles.pop(name).remove()
        for name in wanted - self._handles.keys():
            self._handles[name] = on_forward(modules[name], partial(self._on_output, forward, name))

    def _on_output(self, forward: Forward, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        forward.guard(self._note, name, output)

    def _note(self, name: str, output: Any) -> None:
        from stabdiag.capture.tensors import tensors_in

        for _, tensor in tensors_in(output):
            if tensor.grad_fn is None:
                continue
            if name in self._known:
                self._outputs.append((name, tensor))
                return
            if not self._known:
                self._seen.append((name, tensor))

    def on_backward(self, forward: Forward, roots: Any) -> None:
        from stabdiag.capture.log_softmax import log_softmaxes, source

        outputs = [*reversed(self._seen), *self._outputs]  # the innermost module made it
        made = {id(tensor.grad_fn): (name, tensor) for name, tensor in outputs}
        for softmax in log_softmaxes([getattr(root, "grad_fn", None) for root in roots]):
            found = source(softmax.below, made)
            if found is not None:
                name, tensor = found
                self._known[name] = 1 if softmax.dim == 1 and tensor.dim() > 2 else -1
                self._add(forward, softmax, tensor, self._known[name])
        self._seen.clear()
        self._outputs.clear()
        self._searches = min(self._searches + 1, MOST_SEARCHES)
        if not self._known and self._searches == MOST_SEARCHES:
            forward.cannot("no log-softmax of a module's output was found near the loss")

    def _add(self, forward: Forward, softmax: LogSoftmax, tensor: torch.Tensor, dim: int) -> None:
        share: list[torch.Tensor] = []

        def note(gradients: Any) -> None:
            """By how much the loss that is minimized grows with the cross-entropy: of a mean, what reaches
            it; of anything else the sum of what reaches log Z, or minus that of the log-probabilities."""
            whole = gradients[0] if mean else gradients[0].sum()
            share.append(whole if mean or softmax.written_out else -whole)

        def added(gradient: torch.Tensor) -> torch.Tensor:
            whole: torch.Tensor | None = forward.guard(self._with_z, gradient, share, logits, dim)
            return gradient if whole is None else whole

        mean = softmax.uses is not None and getattr(softmax.uses, "_saved_reduction", None) == 1
        logits = tensor.detach()
        (softmax.uses if mean else softmax.node).register_prehook(note)
        tensor.register_hook(added)  # type: ignore[no-untyped-call]
        forward.count("added")

    def _with_z(
        self, gradient: torch.Tensor, share: list[torch.Tensor], logits: torch.Tensor, dim: int
    ) -> torch.Tensor:
        wide = logits.float()
        log_z = wide.logsumexp(dim, keepdim=True)
        each = share[0] * self.value / log_z.numel()  # as autograd does it, factor by factor
        of_logits = each * (2 * log_z) * (wide - log_z).exp()
        return gradient + of_logits.to(gradient.dtype)

    def end(self) -> None:
        for handle in self._handles.values():
            handle.remove()
        self._outputs.clear()
        self._seen.clear()
