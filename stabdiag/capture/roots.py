"""From the parameters of an optimizer to the module that owns them, and to names."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def clean(name: str) -> str:
    """`name` without the prefixes that wrappers add; a submodule that is called `module` keeps its name
    where nothing else follows."""
    for wrapper in WRAPPERS:
        while name.startswith(wrapper) or f".{wrapper}" in name:
            name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return name


@dataclass(frozen=True)
class Root:
    """A module that is trained; `prefix` tells it from others, and ends in a dot unless it is empty."""

    prefix: str
    module: nn.Module

    def modules(self) -> dict[str, nn.Module]:
        """Name -> module of the tree below the root; the root itself is called by its class."""
        named = {}
        for name, module in self.module.named_modules():
            own = clean(name) if name else ""
            named[self.prefix + own if own else self.label] = module
        return named

    @property
    def label(self) -> str:
        return self.prefix.removesuffix(".") or type(self.module).__name__

    def parameters(self) -> dict[str, nn.Parameter]:
        return {self.prefix + clean(name): p for name, p in self.module.named_parameters()}


def owners(modules: Iterable[nn.Module], parameters: Iterable[torch.Tensor]) -> list[nn.Module]:
    """The module with the fewest parameters that owns all of `parameters`; several, where none does.

    `modules` are all modules that are known. Of modules that own the same, the outermost is meant: tied
    weights let an inner part own all, without the head. Parameters that no module owns have no owner.
    """
    wanted = {id(p) for p in parameters}
    held = [(module, {id(p) for p in module.parameters()}) for module in modules]
    whole = [(module, len(own)) for module, own in held if wanted and wanted <= own]
    smallest = min((size for _, size in whole), default=0)
    some = [m for m, size in whole if size == smallest] or [m for m, own in held if own & wanted]
    below = {id(child) for module in some for child in module.modules() if child is not module}
    return [unwrapped(module) for module in some if id(module) not in below]


def unwrapped(module: nn.Module) -> nn.Module:
    """The user's module inside DistributedDataParallel, torch.compile and their like."""
    children = dict(module.named_children())
    while len(children) == 1 and (inner := f"{next(iter(children))}.") in WRAPPERS:
        module = children[inner[:-1]]
        children = dict(module.named_children())
    return module


def source_of(module: nn.Module) -> str:
    """`file:line` of the class's forward, empty where it has none in Python."""
    code = getattr(inspect.getattr_static(type(module), "forward", None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""
