from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    from stabdiag.intervene.step import Step


@intervention(
    "lower-beta2",
    title="Let the second moment follow faster",
    takes=Value("β2", above=0, most=1, default=0.95),
    advice=("beta2",),
)
class LowerBeta2(Intervention):
    """Sets the second of the `betas` of every parameter group, or RMSprop's `alpha` and Adadelta's `rho`, for
    the step alone; one that is lower already stays."""

    def before_step(self, step: Step) -> None:
        single = next((key for key in ("alpha", "rho") if key in step.groups[0]), None)
        if single is None:
            step.set("betas", lambda group: (group["betas"][0], min(self.value, group["betas"][1])))
        else:
            step.set(single, lambda group: min(self.value, group[single]))
