from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
                before = self._before.get(parameter)
                if before is None:
                    continue
                second = _second(group, step.state(parameter))
                if second is None:
                    step.cannot(f"{type(step.optimizer).__name__} keeps no second moment")
                    return
                excess = float(_rms(parameter, second, group)) / self.value
                if excess > 1:
                    parameter.detach().copy_(before + (parameter.detach() - before) / excess)
                    shortened = True
        self._before.clear()
        if shortened:
            step.count("clipped")

    def end(self) -> None:
        self._before.clear()


def _second(group: Group, state: Mapping[str, Any]) -> torch.Tensor | None:
    """The second moment by which the step was divided: of Adam and its kin, and of RMSprop."""
    if "betas" in group and "exp_avg_sq" in state:
        corrected: torch.Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
        return corrected
    return state.get("square_avg") if "alpha" in group else None


def _rms(parameter: torch.Tensor, second: torch.Tensor, group: Group) -> torch.Tensor:
    assert parameter.grad is not None
    from stabdiag.capture.tensors import real

    shares: torch.Tensor = real(parameter.grad).square() / real(second).clamp(min=group["eps"] ** 2)
    return shares.mean().sqrt()
