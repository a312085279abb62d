from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "clip-each-gradient",
    title="Clip the gradient norm of each parameter by itself",
    takes=Value("largest norm of one parameter's gradient", above=0),
)
class ClipEachGradient(Intervention):
    """Scales each gradient down to that norm by itself, as `clip_grad_norm_([p], VALUE)`: one tensor that
    explodes takes nothing away from the others. A form of the fix `clip-gradients`."""

    decides = True

    def on_gradients(self, step: Step) -> None:
        from torch.nn.utils import clip_grad_norm_

        clipped = [float(clip_grad_norm_([p], self.value)) > self.value for p in step.parameters]
        if any(clipped):
            step.count("clipped")
