"""One step of one optimizer, as interventions see and change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stabdiag.capture.subject import Subject
from stabdiag.intervene.ledger import Ledger, Scene

Group = dict[str, Any]


class Step(Scene):
    """`losses` are those of the backward passes since the last step of any optimizer, unscaled; none where
    each process has its own, on which no decision may rest."""

    def __init__(
        self,
        subject: Subject,
        number: int,
        ledger: Ledger,
        stop: Callable[[str], None],
        optimizer: torch.optim.Optimizer,
        losses: Sequence[torch.Tensor],
    ) -> None:
        super().__init__(subject, number, ledger, stop)
        self.optimizer = optimizer
        self.skipped = False
        self._losses = losses
        self._forgotten = False
        self._settings: list[tuple[Group, str, Any]] = []
        self._gradients: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def groups(self) -> list[Group]:
        return self.optimizer.param_groups

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Those that have a gradient, in the order of the model, as `model.parameters()` has them."""
        place = {id(p): i for i, p in enumerate(self.subject.parameters)}
        held = [p for group in self.groups for p in group["params"] if p.grad is not None]
        return sorted(held, key=lambda p: place.get(id(p), len(place)))

    @property
    def loss(self) -> float | None:
        """The sum of the losses, None where none is known. Waits for the device."""
        return float(sum(float(loss) for loss in self._losses)) if self._losses else None

    def norm(self) -> float:
        """The norm of all gradients of this optimizer, in float32 or better. Waits for the device."""
        norms = [_norm(p.grad) for p in self.parameters if p.grad is not None]
        if not norms:
            return 0.0
        return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])))

    def set(
        self, key: str, value: Callable[[Group], Any], where: Callable[[Group], bool] = lambda _: True
    ) -> None:
        """Gives `key` of each group that has it, and for which `where` holds, another value for this step."""
        held = [group for group in self.groups if group.get(key) is not None and where(group)]
        if not held:
            self.cannot(f"{type(self.optimizer).__name__} has no {key} that could be set")
            return
        before = held[0][key]
        for group in held:
            self._settings.append((group, key, group[key]))
            group[key] = value(group)
        self.count("set", change=f"{key} {_shown(before)} -> {_shown(held[0][key])}")

    def set_epsilon(self, value: Callable[[float], float]) -> None:
        """Gives `eps` of each group another value for this step; of Adafactor's two the first, which stands
        under what is divided by."""

        def changed(group: Group) -> Any:
            held = group["eps"]
            if not isinstance(held, tuple):
                return value(held)
            first = torch.finfo(group["params"][0].dtype).eps if held[0] is None else held[0]
            return value(first), *held[1:]

        self.set("eps", changed)

    def skip(self) -> None:
        """The optimizer finds no gradient, and leaves weights and state alone; later they are back."""
        self.skipped = True
        for parameter in self.parameters:
            assert parameter.grad is not None
            self._gradients.append((parameter, parameter.grad))
            parameter.grad = None

    def forget_gradients(self) -> None:
        """Once the recorder has looked at them."""
        self._forgotten = True

    def state(self, parameter: torch.Tensor) -> Mapping[str, Any]:
        """What the optimizer keeps of a parameter, empty before its first step."""
        return self.optimizer.state.get(parameter) or {}

    def put_gradients_back(self) -> None:
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self._gradients.clear()

    def put_settings_back(self) -> None:
        if self._forgotten:
            self.optimizer.zero_grad(set_to_none=True)
        for group, key, value in reversed(self._settings):
            group[key] = value
        self._settings.clear()


def _norm(gradient: torch.Tensor) -> torch.Tensor:
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    wide = torch.promote_types(values.dtype, torch.float32)
    norm: torch.Tensor = torch.linalg.vector_norm(values, dtype=wide)
    return norm


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return "None" if value is None else f"{float(value):.6g}"
