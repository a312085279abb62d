from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.forward import Forward


@intervention(
    "loss-scaling",
    title="Keep the loss scale from collapsing",
    takes=Value("smallest scale", above=0, default=128),
    advice=("scale_floor",),
)
class LossScaling(Intervention):
    """Raises the scale of the gradient scaler to VALUE wherever it has fallen below, before the next loss is
    scaled by it: as `scaler.update(VALUE)` after the script's own `scaler.update()`."""

    def on_forward(self, forward: Forward) -> None:
        scaler = forward.scaler
        if scaler is None:
            forward.cannot("the script has no gradient scaler in use")
        elif scaler.get_scale() < self.value:
            forward.tell("raised", scale=scaler.get_scale())
            scaler._scale.fill_(self.value)
