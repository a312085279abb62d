"""Calling a trained module once more, and undoing all that it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules import module as module_globals
from torch.nn.modules.lazy import LazyModuleMixin

from stabdiag.capture.hooks import Hook
from stabdiag.capture.interruptions import no_interruptions
from stabdiag.capture.module_state import ModuleState
from stabdiag.capture.muted import muted
from stabdiag.capture.rng import RandomState

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_depth = 0


def replaying() -> bool:
    """Whether a module is being called once more, so that what is seen is no part of training."""
    return _depth > 0


@contextmanager
def aside() -> Iterator[None]:
    """Backward passes inside are no part of training."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def refusal(module: nn.Module) -> str | None:
    """Why `module` may not be called again; None where it may.

    Hooks of the script's and of other tools would take the call for one of training; collectives would
    wait for ranks that do not call.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return "other ranks would not take part in its collectives"
    if any(_foreign(getattr(module_globals, f"_global{kind}")) for kind in HOOKS):
        return "the script has hooks on all modules"
    state = ModuleState(module)
    for inner in state.modules:
        because = _refusal_of_one(inner) or _refusal_of_tensors(inner)
        if because is not None:
            return f"a {type(inner).__name__} {because}"
    return state.unrestorable


def _refusal_of_one(module: nn.Module) -> str | None:
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return "has no shape yet"
    if any(_foreign(vars(module).get(kind)) for kind in HOOKS):
        return "has hooks of the script's own"
    if isinstance(module, torch.jit.ScriptModule):
        return "is scripted, and keeps its state out of sight"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
        return "with max_norm changes its weights when it is called"
    return None


def _refusal_of_tensors(module: nn.Module) -> str | None:
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and type(tensor) not in (torch.Tensor, nn.Parameter):
            return f"holds a {type(tensor).__name__}"
        if tensor is not None and (tensor.is_inference() or tensor.is_meta):
            return "holds tensors that cannot be written to"
    return None


def _foreign(hooks: Mapping[int, object] | None) -> bool:
    """Whether there are any but ours, which are off in a replay, and torch's own reparametrisations, which
    compute a weight from its parameters."""
    return any(
        not isinstance(hook, Hook) and not type(hook).__module__.startswith("torch.nn.utils.")
        for hook in (hooks or {}).values()
    )


@contextmanager
def undone(module: nn.Module, replacing: Mapping[int, torch.Tensor] | None = None) -> Iterator[None]:
    """Inside, `module` can be called, with gradients; afterwards all is as before, to the bit.

    That is: random number generators, buffers, attributes of all modules below (and what containers and
    objects among them hold, one level down), modes, `.grad`, autocast, the default dtype. What is printed,
    logged and warned of meanwhile is dropped, and signals wait. Hooks of ours are off. `replacing` puts
    other tensors in the place of parameters, by their id; a forward that refers to them from outside the
    module's tree still finds the old ones. Errors pass through.

    A module that `refusal` objects to has effects that this does not know of.
    """
    global _depth
    with no_interruptions():
        state, rng, settings = ModuleState(module), RandomState(), _Settings()
        state.set_aside()
        _depth += 1
        try:
            for inner in state.modules:
                _without_our_hooks(inner)
            state.replace(replacing or {})
            torch.set_autocast_cache_enabled(False)
            with muted(), torch.enable_grad():
                yield
        finally:
            _depth -= 1
            settings.restore()
            rng.restore()
            state.restore()


def _without_our_hooks(module: nn.Module) -> None:
    for kind in HOOKS:
        table = vars(module).get(kind) or {}
        for key in [key for key, hook in table.items() if isinstance(hook, Hook)]:
            del table[key]


class _Settings:
    """torch's own settings that a forward may leave changed."""

    def __init__(self) -> None:
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        self._casts = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices]
        self._cache = torch.is_autocast_cache_enabled()
        self._dtype = torch.get_default_dtype()
        self._gradients = torch.is_grad_enabled()

    def restore(self) -> None:
        for device, enabled, dtype in self._casts:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(self._cache)
        torch.set_default_dtype(self._dtype)
        torch.set_grad_enabled(self._gradients)
