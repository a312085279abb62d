from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch
    from torch import nn

    from stabdiag.capture.attention_calls import AttentionCall
    from stabdiag.capture.graph_reader import GraphReader
    from stabdiag.capture.projections import Projection
    from stabdiag.intervene.forward import Forward
    from stabdiag.intervene.step import Step

NO_WEIGHTS = "its logits do not grow with weights that could be told: {}"


@intervention(
    "qk-clip",
    title="Rescale queries and keys whose logits grow too large",
    takes=Value("largest attention logit, before biases", above=0, default=100),
    advice=("qk_clip",),
)
class QkClip(Intervention):
    """After each step: of every head whose largest logit in the step's forward passes was S > VALUE, the rows
    of the projections that make its queries and its keys are multiplied by sqrt(VALUE / S), biases with them
    (Kimi K2, arXiv 2507.20534). Where heads share keys, its queries alone are, by VALUE / S. Queries or keys
    that are normalized, or not made by one linear map, are left alone."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._reader: GraphReader[AttentionCall] | None = None
        self._forward: Forward | None = None
        self._armed = False
        self._weights: dict[str, tuple[Projection, Projection] | None] = {}
        self._largest: dict[str, torch.Tensor] = {}

    def on_forward(self, forward: Forward) -> None:
        from stabdiag.capture.attention_calls import attention_call
        from stabdiag.capture.graph_reader import GraphReader
        from stabdiag.capture.placement import in_world

        if in_world():
            forward.cannot("each process has logits of its own, and would rescale apart")
            return
        self._forward = forward
        if self._reader is None:
            self._reader = GraphReader(forward.subject, self.id, attention_call, self._on_found)
        if not self._armed:
            self._reader.arm()
            self._armed = True

    def _on_found(self, name: str, module: nn.Module, what: AttentionCall) -> None:
        assert self._forward is not None
        self._forward.guard(self._found, name, module, what)

    def _found(self, name: str, module: nn.Module, what: AttentionCall) -> None:
        from stabdiag.capture.projections import projections

        call = what.within(module)
        if name not in self._weights:
            self._weights[name] = projections(call)
            if self._weights[name] is None and self._forward is not None:
                self._forward.cannot(NO_WEIGHTS.format(name))
        if self._weights[name] is not None:
            largest = call.largest()
            before = self._largest.get(name)
            self._largest[name] = largest if before is None else largest.maximum(before)

    def before_step(self, step: Step) -> None:
        if self._reader is not None and self._armed:
            self._reader.disarm()
            self._armed = False

    def after_step(self, step: Step) -> None:
        held = {id(p) for group in step.groups for p in group["params"]}
        for name, largest in list(self._largest.items()):
            found = self._weights[name]
            if found is None or id(found[0].weight) not in held:
                continue
            del self._largest[name]
            above = [head for head, logit in enumerate(largest.tolist()) if logit > self.value]
            for head in above:
                self._rescale(*found, head, float(largest[head]))
            if above:
                step.count("clipped", where=name, logit=float(largest.max()))

    def _rescale(self, query: Projection, key: Projection, head: int, logit: float) -> None:
        shared = int((key.rows == key.rows[head]).all(1).sum()) > 1
        factor = self.value / logit if shared else (self.value / logit) ** 0.5
        for made in (query,) if shared else (query, key):
            for tensor in (made.weight, made.bias):
                if tensor is not None:
                    _rows_of(tensor, made.rows[head], factor)

    def end(self) -> None:
        if self._reader is not None:
            self._reader.disarm()
        self._largest.clear()


def _rows_of(tensor: torch.Tensor, rows: torch.Tensor, factor: float) -> None:
    values = tensor.detach()
    values[rows] *= factor
