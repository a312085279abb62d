"""Two models on the same inputs: what the outputs of each module lose, accumulated and by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from stabdiag.capture.model_calls import (
    CannotCopy,
    Outputs,
    called,
    given_again,
    in_type_of,
    likeness,
    names_of,
    outputs_of,
)
from stabdiag.capture.replay import undone
from stabdiag.capture.rng import RandomState
from stabdiag.core.layer_loss import LayerLoss, LayerLosses, Loss

WRAPPERS = ("_orig_mod", "module")


@dataclass
class _Call:
    """One call of a module of the copy: what it was given looked like, and what it returned."""

    like: Any
    outputs: Outputs


@dataclass
class _Sums:
    """Of x², y², x·y and (x − y)² over the finite elements, in float64; `nonfinite` of y alone."""

    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    dd: float = 0.0
    nonfinite: int = 0
    calls: int = 0

    def add(self, a: Outputs, b: Outputs) -> str:
        """Why these cannot be held against each other; empty where they could."""
        if not a or a.keys() != b.keys():
            return "it returns other things in each model" if a or b else ""
        for path, left in a.items():
            if left.shape != b[path].shape:
                shapes = (" × ".join(map(str, tensor.shape)) for tensor in (left, b[path]))
                return f"its outputs have other shapes: {' against '.join(shapes)}"
        for path, left in a.items():
            self._add(left, b[path])
        self.calls += 1
        return ""

    def _add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        device = torch.device("cpu") if a.device.type == "mps" else a.device  # it has no float64
        x, y = (tensor.detach().to(device).double().flatten() for tensor in (a, b))
        finite = torch.isfinite(x) & torch.isfinite(y)
        self.nonfinite += int((torch.isfinite(x) & ~torch.isfinite(y)).sum())
        x, y = torch.where(finite, x, 0.0), torch.where(finite, y, 0.0)
        products = (x @ x, y @ y, x @ y, (x - y) @ (x - y))
        xx, yy, xy, dd = torch.stack(products).tolist()
        self.xx, self.yy, self.xy, self.dd = self.xx + xx, self.yy + yy, self.xy + xy, self.dd + dd

    @property
    def loss(self) -> Loss:
        return Loss.of(self.xx, self.yy, self.xy, self.dd, self.nonfinite)


@dataclass
class _Module:
    """A module of the original, and what of it is known so far. `pending` are outputs of its counterpart
    for calls that have not returned."""

    order: int
    type_a: str
    type_b: str
    accumulated: _Sums = field(default_factory=_Sums)
    introduced: _Sums = field(default_factory=_Sums)
    calls: int = 0
    pending: list[Outputs | None] = field(default_factory=list)
    because: str = ""
    not_alone: str = ""


def layer_losses(a: nn.Module, b: nn.Module, batch: Any) -> LayerLosses:
    """As `stabdiag.compare_models` says."""
    a, b = _unwrapped(a), _unwrapped(b)
    with ExitStack() as stack:
        for model in (a, b):
            stack.enter_context(_renormalised_weights(model))
            stack.enter_context(undone(model))
        stack.enter_context(torch.no_grad())
        for model in (a, b):
            for module in model.modules():
                module.training = False
        return _Comparison(a, b).run(batch)


class _Comparison:
    """b runs first, so that it is known what its modules are given; then a, each of whose modules takes its
    counterpart along. `_aside` is on while that runs: models may share modules."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        self._a, self._b = a, b
        self._counterparts = dict(b.named_modules())
        self._names = {"a": names_of(a.named_modules()), "b": names_of(b.named_modules())}
        self._kept: dict[str, list[_Call]] = {}
        self._seen: dict[str, _Module] = {}
        self._only_a: dict[str, None] = {}
        self._aside = False

    def run(self, batch: Any) -> LayerLosses:
        random = RandomState()
        with self._hooked(self._b, None, self._keep):
            called(self._b, in_type_of(batch, self._b))
        random.restore()
        with self._hooked(self._a, self._before, self._after):
            called(self._a, in_type_of(batch, self._a))
        return self._told()

    @contextmanager
    def _hooked(self, model: nn.Module, before: Any, after: Any) -> Iterator[None]:
        handles = []
        for module in model.modules():
            if before is not None:
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        outputs = {path: tensor.clone() for path, tensor in outputs_of(output).items()}
        call = _Call(likeness([list(args), dict(kwargs)]), outputs)
        self._kept.setdefault(self._names["b"][id(module)], []).append(call)

    def _before(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if self._aside:
            return
        name = self._names["a"][id(module)]
        twin, kept = self._counterparts.get(name), self._kept.get(name)
        if twin is None or kept is None:
            self._only_a[name] = None
            return
        if name not in self._seen:
            self._seen[name] = _Module(len(self._seen), _type_of(module), _type_of(twin))
        seen = self._seen[name]
        like = kept[min(seen.calls, len(kept) - 1)].like
        seen.pending.append(
            None if seen.not_alone or not name else self._alone(seen, twin, args, kwargs, like)
        )

    def _alone(
        self, seen: _Module, twin: nn.Module, args: Any, kwargs: Mapping[str, Any], like: Any
    ) -> Outputs | None:
        """The counterpart on these inputs, with the random numbers that the module will draw itself."""
        random = RandomState()
        self._aside = True
        try:
            own_args, own_kwargs = given_again([list(args), dict(kwargs)], like)
            return outputs_of(twin(*own_args, **own_kwargs))
        except CannotCopy as reason:
            seen.not_alone = str(reason)
        except Exception as error:
            seen.not_alone = f"given the other's inputs it raises {type(error).__name__}: {error}"
        finally:
            self._aside = False
            random.restore()
        return None

    def _after(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        seen = self._seen.get(self._names["a"][id(module)])
        if self._aside or seen is None:
            return
        alone, kept = seen.pending.pop(), self._kept[self._names["a"][id(module)]]
        outputs = outputs_of(output)
        if seen.calls < len(kept):
            seen.because = seen.because or seen.accumulated.add(outputs, kept[seen.calls].outputs)
        if alone is not None:
            seen.not_alone = seen.not_alone or seen.introduced.add(outputs, alone)
        seen.calls += 1

    def _told(self) -> LayerLosses:
        compared = {name: seen for name, seen in self._seen.items() if seen.accumulated.calls}
        around = {"", *(part for name in compared for part in _around(name))}
        losses = [
            LayerLoss(
                name,
                seen.type_a,
                seen.type_b,
                seen.order,
                seen.calls,
                name in around and len(compared) > 1,
                seen.accumulated.loss,
                _introduced(name, seen),
            )
            for name, seen in compared.items()
        ]
        inner = sorted(
            (loss for loss in losses if not loss.contains), key=lambda loss: (loss.own.snr, loss.order)
        )
        outer = sorted((loss for loss in losses if loss.contains), key=lambda loss: loss.order)
        only_b = tuple(name for name in self._kept if name not in self._seen)
        return LayerLosses(tuple(inner), tuple(outer), tuple(self._only_a), only_b, tuple(self._notes()))

    def _notes(self) -> Iterator[str]:
        for name, seen in self._seen.items():
            what = name or "the model"
            if seen.because:
                yield f"{what}: {seen.because}"
            elif seen.not_alone:
                yield f"{what}: {seen.not_alone}"
            calls = len(self._kept[name])
            if seen.calls != calls:
                yield f"{what}: called {seen.calls} times in the first model and {calls} in the second"


def _type_of(module: nn.Module) -> str:
    """Its own word for it, in which a quantised layer says that it is one."""
    return str(module._get_name())  # type: ignore[no-untyped-call]


def _introduced(name: str, seen: _Module) -> Loss | None:
    """That of the whole model is what it loses: it is given the same."""
    if not name:
        return seen.accumulated.loss
    return seen.introduced.loss if seen.introduced.calls and not seen.not_alone else None


def _around(name: str) -> Iterator[str]:
    """The names of the modules around one."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _unwrapped(model: nn.Module) -> nn.Module:
    """What torch.compile and wrappers of data parallelism hold: their modules are called without hooks."""
    for name in WRAPPERS:
        inner = model._modules.get(name)
        if inner is not None and len(model._modules) == 1:
            return _unwrapped(inner)
    return model


@contextmanager
def _renormalised_weights(model: nn.Module) -> Iterator[None]:
    """Embeddings with a largest norm change their weights in being called: put back afterwards."""
    kept = [
        (module.weight, module.weight.detach().clone())
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)
