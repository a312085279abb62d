from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "clip-gradients",
    title="Clip the gradient norm",
    takes=Value("largest norm of all gradients of an optimizer together", above=0),
    advice=("clip_norm",),
)
class ClipGradients(Intervention):
    """Scales the gradients of an optimizer down to that norm, as `clip_grad_norm_` just before its step;
    after the script's own clipping, where it has one."""

    decides = True

    def on_gradients(self, step: Step) -> None:
        from torch.nn.utils import clip_grad_norm_

        if float(clip_grad_norm_(step.parameters, self.value)) > self.value:
            step.count("clipped")
