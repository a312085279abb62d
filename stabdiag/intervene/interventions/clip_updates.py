from __future__ import annotations

from typing import TYPE_CHECKING

from stabdiag.intervene.intervention import Intervention, Value, intervention

if TYPE_CHECKING:
    import torch

    from stabdiag.intervene.step import Group, Step


@intervention(
    "clip-updates",
    title="Clip the update of each parameter",
    takes=Value("RMS_t above which an update is shortened", above=0, default=1),
    advice=("clip_updates",),
)
class ClipUpdates(Intervention):
    """Shortens the step of a parameter by max(1, RMS_t / VALUE), where RMS_t = sqrt(mean(g² / max(v̂, ε²)))
    of gradient and bias-corrected second moment: what StableAdamW does (Wortsman et al., arXiv 2304.13013).

    Of optimizers that keep a second moment. It holds a copy of the weights during the step."""

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self._before: dict[torch.Tensor, torch.Tensor] = {}

    def on_gradients(self, step: Step) -> None:
        self._before.clear()
        for parameter in step.parameters:
            self._before[parameter] = parameter.detach().clone()

    def after_step(self, step: Step) -> None:
        shortened = False
        for group in step.groups:
            for parameter in group["params"]:
                before, second = self._before.get(parameter), step.state(parameter).get("exp_avg_sq")
                if before is None:
                    continue
                if second is None or "betas" not in group:
                    step.cannot(f"{type(step.optimizer).__name__} keeps no second moment")
                    return
                excess = float(_rms(parameter, second, group, step.state(parameter)["step"])) / self.value
                if excess > 1:
                    parameter.detach().copy_(before + (parameter.detach() - before) / excess)
                    shortened = True
        self._before.clear()
        if shortened:
            step.count("clipped")

    def end(self) -> None:
        self._before.clear()


def _rms(parameter: torch.Tensor, second: torch.Tensor, group: Group, count: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    corrected = second / (1 - group["betas"][1] ** count)
    shares: torch.Tensor = parameter.grad.square() / corrected.clamp(min=group["eps"] ** 2)
    return shares.mean().sqrt()
