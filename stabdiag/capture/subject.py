"""What is trained: modules, parameters and optimizers as all probes see them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from stabdiag.capture.compiled_regions import run_inside
from stabdiag.capture.flight import Flight
from stabdiag.capture.guard import Guard
from stabdiag.capture.parameters import Inventory
from stabdiag.capture.placement import Placements
from stabdiag.capture.roots import Root
from stabdiag.core.site import Site


class Subject:
    """`modules` are those that may be hooked, by name; `compiled` those inside torch.compile, which may
    not: hooks would be traced; `wrapped` pairs the modules given to torch.compile with the wrappers that
    it made. `entries` gives for a prefix the module that the script itself calls, and
    the object that it calls: the module, or the wrapper that torch.compile made. `order` is the place of
    each module in the forward pass, as far as one was seen. `loss_closure` computes the loss whose curvature
    is wanted, where the script has given one. `samples` counts the rows of the batch in
    this step, or its tokens where those are known. `placements` tells how the processes of a world share
    each parameter. `primary` are the parameters of the first optimizer. `flight` holds the last steps.
    """

    def __init__(
        self, guard: Guard, in_backward: Callable[[], bool], event: Callable[..., None], flight: Flight
    ) -> None:
        self.guard = guard
        self.in_backward = in_backward
        self.event = event
        self.flight = flight
        self.modules: dict[str, nn.Module] = {}
        self.compiled: dict[str, nn.Module] = {}
        self.entries: dict[str, tuple[nn.Module, nn.Module]] = {}
        self.parameters: list[torch.Tensor] = []
        self.sites: list[Site] = []
        self.order: dict[str, int] = {}
        self.samples = 0
        self.loss_closure: Callable[[], torch.Tensor] | None = None
        self._inventory = Inventory()
        self.placements = Placements(())
        self._index: dict[int, int] = {}
        self.wrapped: list[tuple[nn.Module, nn.Module]] = []
        self._wrappers: dict[int, nn.Module | None] = {}
        # Weak, as a later optimizer may have the address of one that is gone.
        self.optimizers: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
        self.optimizers_seen = 0
        self.primary: list[int] = []
        self._held: weakref.WeakKeyDictionary[torch.optim.Optimizer, tuple[list[int], list[int]]] = (
            weakref.WeakKeyDictionary()
        )

    def add_roots(
        self,
        roots: Sequence[nn.Module],
        compiled: Sequence[tuple[nn.Module, nn.Module | None]],
        around: Iterable[nn.Module],
    ) -> list[Root]:
        """Those of `roots` that are new. `compiled`: modules given to torch.compile, and their wrappers;
        `around`: modules, among which are wrappers of data parallelism."""
        self.placements = Placements(around)
        self._wrappers.update((id(module), wrapper) for module, wrapper in compiled)
        self.wrapped = [(module, wrapper) for module, wrapper in compiled if wrapper is not None]
        inside = {m for outer, _ in compiled for m in outer.modules()}
        fresh = self._inventory.add(roots)
        for root in fresh:
            for name, module in root.modules().items():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # they take no hooks
                (self.compiled if module in inside else self.modules)[name] = module
        self.refresh()
        return fresh

    def hide(self, leaves: set[int]) -> list[str]:
        """The names of the modules that read these leaves in compiled code, and that were not known to: they
        take no hook from now on."""
        known = {id(p) for module in self.compiled.values() for p in module.parameters()}
        outermost = run_inside(self.roots.values(), leaves - known)
        self._wrappers.update((id(module), None) for module in outermost)
        inside = {m for outer in outermost for m in outer.modules()}
        names = [name for name, module in self.modules.items() if module in inside]
        self.compiled.update((name, self.modules.pop(name)) for name in names)
        self.refresh()
        return names

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> int:
        index = self.optimizers[optimizer] = self.optimizers_seen
        self.optimizers_seen += 1
        self._inventory.optimized([p for group in optimizer.param_groups for p in group["params"]])
        self.refresh()
        return index

    def refresh(self) -> None:
        """Takes in which modules run, and in which order, as far as that is known by now."""
        self.parameters, sites = self._inventory.sites(self.order)
        self.sites = [self.placements.describe(*pair) for pair in zip(sites, self.parameters, strict=True)]
        self._index = {id(p): i for i, p in enumerate(self.parameters)}
        self._held.clear()
        self.primary = self.indices(self._inventory.primary)
        entries = self._inventory.entries({name.partition("[")[0] for name in self.order})
        called = {prefix: self._wrappers.get(id(module), module) for prefix, module in entries.items()}
        self.entries = {prefix: (entries[prefix], c) for prefix, c in called.items() if c is not None}

    @property
    def roots(self) -> dict[str, nn.Module]:
        """Prefix -> root module."""
        return self._inventory.entries(set())

    def indices(self, parameters: Iterable[torch.Tensor]) -> list[int]:
        """Where these are among `parameters`; those that are not watched are left out."""
        return [i for p in parameters if (i := self._index.get(id(p))) is not None]

    def held_by(self, optimizer: torch.optim.Optimizer) -> list[int]:
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        known = self._held.get(optimizer)
        if known is None or known[0] != sizes:
            held = self.indices(p for group in optimizer.param_groups for p in group["params"])
            known = self._held[optimizer] = sizes, held
        return known[1]
