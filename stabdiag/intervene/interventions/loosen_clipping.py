from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.capture.clipping import Clip
    from stabdiag.intervene.ledger import Scene


@intervention(
    "loosen-clipping",
    title="Loosen the gradient clipping",
    takes=Value("largest norm", above=0),
    advice=("clip_norm",),
)
class LoosenClipping(Intervention):
    """Clips at VALUE wherever the script's own `clip_grad_norm_` would clip at less."""

    def on_clip(self, scene: Scene, clip: Clip) -> float:
        if clip.max_norm < self.value:
            scene.count("loosened")
        return max(clip.max_norm, self.value)
