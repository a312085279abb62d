"""The roots that are known, and the parameters that they and the optimizers hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from stabdiag.capture.roots import Root, source_of
from stabdiag.capture.tensors import measurable, type_name
from stabdiag.core.site import Site


class Inventory:
    """Parameters have one name each, that of the root that was found first; tied ones are one."""

    def __init__(self) -> None:
        self._roots: list[Root] = []
        self._named: dict[str, torch.Tensor] = {}
        self._owners: dict[str, nn.Module] = {}
        self._known: set[int] = set()
        self._optimized: set[int] = set()
        self.primary: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self._named)

    def add(self, modules: Sequence[nn.Module]) -> list[Root]:
        """New roots get a prefix where there are several; what is known, or inside a root, is not new."""
        inside = {m for root in self._roots for m in root.module.modules()}
        fresh = [module for module in modules if module not in inside]
        several = len(fresh) + len(self._roots) > 1
        added = []
        for module in fresh:
            root = Root(self._prefix(module) if several else "", module)
            self._roots.append(root)
            added.append(root)
            owners = root.modules()
            for name, parameter in root.parameters().items():
                if self._is_new(parameter):
                    self._known.add(id(parameter))
                    self._named[name] = parameter
                    self._owners[name] = owners.get(name.rpartition(".")[0], module)
        return added

    def _is_new(self, parameter: torch.Tensor) -> bool:
        measured = not is_lazy(parameter) and measurable(parameter) is not None
        return measured and id(parameter) not in self._known

    def _prefix(self, module: nn.Module) -> str:
        taken = {root.prefix for root in self._roots}
        base = type(module).__name__
        names = [f"{base}.", *(f"{base}-{n}." for n in range(2, len(taken) + 3))]
        return next(name for name in names if name not in taken)

    def optimized(self, parameters: Iterable[torch.Tensor]) -> None:
        """Notes the parameters of an optimizer; those that no module owns are called `parameters.<n>`."""
        held = list(parameters)
        self._optimized.update(id(p) for p in held)
        if not self.primary:
            self.primary = held
        for parameter in held:
            if self._is_new(parameter):
                self._known.add(id(parameter))
                self._named[f"parameters.{len(self._named)}"] = parameter

    def sites(self, order: dict[str, int]) -> tuple[list[torch.Tensor], list[Site]]:
        """The parameters and their sites of kind `weight`; `order` gives the place of each module."""
        described = []
        for name, parameter in self._named.items():
            owner = self._owners.get(name)
            module = name.rpartition(".")[0] or (type(owner).__name__ if owner is not None else "")
            described.append(
                Site(
                    "weight",
                    name,
                    module_type=type(owner).__name__ if owner is not None else "",
                    # A scalar is a vector of one: no shape is one that is not known.
                    shape=tuple(parameter.shape) or (1,),
                    dtype=type_name(parameter),
                    order=order.get(module, -1),
                    trainable=parameter.requires_grad,
                    # Where no optimizer is known, the script itself moves the weights.
                    optimized=not self._optimized or id(parameter) in self._optimized,
                    source=source_of(owner) if owner is not None else "",
                )
            )
        return list(self._named.values()), described

    def entries(self, fired: set[str]) -> dict[str, nn.Module]:
        """Prefix -> module of those that the script calls itself: the roots, or what was seen to run
        inside a root that never ran."""
        found: dict[str, nn.Module] = {}
        for root in self._roots:
            if root.label in fired or not fired:
                found[root.prefix] = root.module
                continue
            modules = root.modules()
            ran = [name for name in modules if name in fired]
            for name in ran:
                if not any(name.startswith(f"{outer}.") for outer in ran):
                    found[f"{name}."] = modules[name]
        return found
