from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.forward import Forward
    from stabdiag.intervene.ledger import Scene
    from stabdiag.intervene.step import Step


@intervention(
    "early-stopping",
    title="Stop the run",
    takes=Value("number of steps after which it is asked to stop", above=0, whole=True),
    advice=("stop_at",),
)
class EarlyStopping(Intervention):
    """Asks the target to stop after that many steps, as a person at the terminal would: by SIGINT, and by
    SIGTERM where it goes on for half a minute. It may make a few steps more until then."""

    def on_forward(self, forward: Forward) -> None:
        self._look(forward)

    def before_step(self, step: Step) -> None:
        self._look(step)

    def _look(self, scene: Scene) -> None:
        if scene.number >= self.value:
            scene.stop(f"early-stopping: {scene.number} steps are done")
