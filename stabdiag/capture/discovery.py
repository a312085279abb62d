"""Which modules a script has, and the moment at which it begins to train."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils.hooks import RemovableHandle

from stabdiag.capture.hooks import Hook, before_forward
from stabdiag.capture.patch import Patch

Trigger = Callable[[nn.Module, tuple[Any, ...]], None]


class Discovery:
    """Keeps weak note of all modules as they are built, copied or unpickled, and calls
    `trigger(module, args)` at each call of a module with gradients enabled, until `settle`.

    Modules given to torch.compile are noted too. As torch warns of global hooks when a compiled module
    runs, the trigger then hangs on its wrapper: what hangs on a module inside is seen by the compiler.
    `module.compile()` and compiled functions make no wrapper: the trigger is then given up, and the first
    backward pass has to do.
    """

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger
        self._modules: dict[int, weakref.ref[nn.Module]] = {}
        self._registrations = [
            register_module_module_registration_hook(self._on_child),
            register_module_parameter_registration_hook(self._on_parameter),
        ]
        self._calls: list[RemovableHandle] = [register_module_forward_pre_hook(Hook(self._on_call))]

        @functools.wraps(torch.compile)
        def compile(model: Any = None, *args: Any, **kwargs: Any) -> Any:
            if model is not None and not isinstance(model, nn.Module):
                self.settle()
            return self._compile.original(model, *args, **kwargs)

        self._compile = Patch(torch, "compile", compile)

        @functools.wraps(nn.Module.__setstate__)
        def setstate(module: nn.Module, state: Any) -> None:
            self._setstate.original(module, state)
            self._note(module)

        self._setstate = Patch(nn.Module, "__setstate__", setstate)

    def _on_child(self, module: nn.Module, name: str, child: nn.Module | None) -> None:
        if not torch.compiler.is_compiling():
            self._note(module)
            if child is not None:
                self._note(child)
                if name == "_orig_mod" and _wraps(module):
                    self._on_compiled(module)

    def _on_parameter(self, module: nn.Module, _name: str, _parameter: Any) -> None:
        if not torch.compiler.is_compiling():
            self._note(module)

    def _note(self, module: nn.Module) -> None:
        key = id(module)
        if key not in self._modules:
            self._modules[key] = weakref.ref(module, lambda _: self._modules.pop(key, None))

    def _on_compiled(self, wrapper: nn.Module) -> None:
        if self._calls:
            self.settle()
            self._calls.append(before_forward(wrapper, self._on_call, kwargs=False))

    def _on_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            self._trigger(module, args)

    def settle(self) -> None:
        """The trigger has done its work."""
        for handle in self._calls:
            handle.remove()
        self._calls.clear()

    @property
    def modules(self) -> list[nn.Module]:
        """All living modules that have a child or a parameter, oldest first."""
        return [module for ref in tuple(self._modules.values()) if (module := ref()) is not None]

    @property
    def compiled(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """Modules given to torch.compile, and the wrapper that it made; None where it made none."""
        return compiled_among(self.modules)

    def remove(self) -> None:
        self.settle()
        self._compile.remove()
        self._setstate.remove()
        for handle in self._registrations:
            handle.remove()


def compiled_among(modules: Iterable[nn.Module]) -> list[tuple[nn.Module, nn.Module | None]]:
    """Those that torch.compile runs, each with the wrapper that it made; None where it made none."""
    found: list[tuple[nn.Module, nn.Module | None]] = []
    for module in modules:
        if _wraps(module):
            found.append((module._modules["_orig_mod"], module))  # type: ignore[arg-type]
        elif getattr(module, "_compiled_call_impl", None) is not None:
            found.append((module, None))
    return found


def _wraps(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule"
