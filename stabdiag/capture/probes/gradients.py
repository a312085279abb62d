"""Weights and gradients of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from stabdiag.capture.clipping import Clip
from stabdiag.capture.dead_rows import DeadRows
from stabdiag.capture.placement import agreed, is_summand
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import measurable
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.extent import largest_magnitudes

CARRYOVER_LOOKS = 3
Held = list[tuple[int, torch.Tensor]]
"""Parameters by their index, and a tensor of each."""


def norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm of each tensor: float32 [len(tensors)], on the device of the first."""
    double = any(t.dtype == torch.float64 for t in tensors)  # torch takes no norm in a narrower type
    each = torch._foreach_norm(list(tensors), 2, dtype=torch.float64 if double else torch.float32)
    return side_by_side(each)


def side_by_side(scalars: Sequence[torch.Tensor]) -> torch.Tensor:
    """float32 [len(scalars)] of 0-d tensors, on the device of the first."""
    return torch.stack([s.to(scalars[0].device, torch.float32) for s in scalars])


@probe
class GradientProbe(Probe):
    """Kinds `grad` and `weight`.

    The norm of every gradient is taken before clipping, where there is any. In steps of the standard tier
    come the gradient as the optimizer saw it, its extent, its silent rows, the weights, and the
    gradients that no optimizer has used so far; these do not count in the norm of the whole.
    """

    id = "grad"
    tier = Tier.FAST
    scalars = ("grad_norm", "clipped_grad_norm")

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._whole = False
        self._sites: list[Site] = []
        self._weights: list[Site] = []
        self._dead = DeadRows()
        self._used: set[int] = set()
        self._reset()

    def _reset(self) -> None:
        self._taken: set[int] = set()
        self._parts: dict[str, tuple[list[int], torch.Tensor]] = {}
        self._clip: torch.Tensor | None = None
        self._found: list[torch.Tensor] = []

    def on_change(self) -> None:
        self._weights = list(self.subject.sites)
        self._sites = [replace(site, kind="grad") for site in self.subject.sites]

    def arm(self, tier: Tier) -> None:
        self._whole = tier >= Tier.STANDARD

    def on_backward_begin(self, roots: Sequence[torch.Tensor], scale: torch.Tensor | None) -> None:
        """Looks for gradients that an earlier step left behind."""
        if not self._whole or len(self._found) >= CARRYOVER_LOOKS:
            return
        left = self._present(self.subject.primary)
        if left:
            self._found.append(torch.linalg.vector_norm(norms([g for _, g in left])))
        else:
            self._found = [torch.zeros(())] * CARRYOVER_LOOKS

    def _present(self, indices: Iterable[int]) -> Held:
        pairs = ((i, self.subject.parameters[i].grad) for i in indices)
        present = ((i, measurable(g)) for i, g in pairs if g is not None and not is_summand(g))
        return [(i, values) for i, values in present if values is not None]

    def _take(self, part: str, present: Held) -> None:
        if present:
            self._note(part, [i for i, _ in present], norms([g for _, g in present]))

    def _note(self, part: str, indices: list[int], values: torch.Tensor) -> None:
        self._parts[f"{part}:{len(self._parts)}"] = indices, values

    def on_clip(self, clip: Clip) -> None:
        indices = self.subject.indices(clip.parameters)
        new = {i for i in indices if i not in self._taken}
        self._taken.update(new)
        if len(indices) == len(clip.parameters):
            known = {i: n for i, n in zip(indices, clip.norms(), strict=True) if n is not None and i in new}
            if known:
                self._note("norm", list(known), side_by_side(list(known.values())))
            new -= known.keys()
        self._take("norm", self._present(sorted(new)))
        total = agreed(clip.total.detach())
        if total is None:  # its terms are on several processes, and are not to be added by us
            return
        coefficient = torch.clamp(clip.max_norm / (total.to(torch.float32) + 1e-6), max=1.0)
        self._clip = coefficient if self._clip is None else self._clip * coefficient

    def on_step_end(self, optimizer: torch.optim.Optimizer | None, indices: Sequence[int]) -> None:
        new = [i for i in indices if i not in self._taken]
        present = self._present(indices if self._whole else new)
        self._take("norm", [(i, g) for i, g in present if i not in self._taken])
        self._taken.update(new)
        self._used.update(new)
        if self._whole and present:
            self._take("clipped", present)
            self._note("absmax", [i for i, _ in present], largest_magnitudes([g for _, g in present]))
            self._note_dead(present)

    def _note_dead(self, present: Held) -> None:
        by_device: dict[torch.device, Held] = {}
        for i, gradient in present:
            if gradient.dim() > 1 and self._sites[i].module_type != "Embedding":
                by_device.setdefault(gradient.device, []).append((i, gradient))
        for matrices in by_device.values():
            shares = self._dead.shares(matrices, max(self.subject.samples, 1))
            self._note("dead", [i for i, _ in matrices], shares)

    def harvest(self) -> Harvest:
        if self._whole:
            orphans = (i for i in range(len(self._sites)) if i not in self._taken | self._used)
            self._take("orphan", self._present(orphans))
            held = enumerate(self.subject.parameters)
            weights = [(i, values) for i, p in held if (values := measurable(p)) is not None]
            self._take("weight", weights)
            if weights:
                self._note("extent", [i for i, _ in weights], largest_magnitudes([w for _, w in weights]))
        tensors = {name: values for name, (_, values) in self._parts.items()}
        if self._clip is not None:
            tensors["clip"] = self._clip
        if self._found:
            tensors["found"] = torch.stack([n.to(self._found[0].device) for n in self._found])
        where = {name: indices for name, (indices, _) in self._parts.items()}
        self._reset()
        return Harvest(tensors, partial(self._finish, where))

    def _spread(self, part: str, where: dict[str, list[int]], arrays: Arrays) -> NDArray[np.float32]:
        values = np.full(len(self._sites), np.nan, np.float32)
        for name, indices in where.items():
            if name.startswith(f"{part}:"):
                values[indices] = arrays[name]
        return values

    def _finish(self, where: dict[str, list[int]], arrays: Arrays, _scale: float) -> Measured:
        norm = self._spread("norm", where, arrays)
        there = {name: np.zeros(1, np.float32) for name in where}
        used = self._spread("norm", where, there) == 0
        orphan = self._spread("orphan", where, there) == 0
        norm[orphan] = self._spread("orphan", where, arrays)[orphan]
        measured = used | orphan
        nonfinite = np.where(measured, ~np.isfinite(norm), np.nan).astype(np.float32)
        columns = {
            "norm": norm,
            "nonfinite": nonfinite,
            "clipped_norm": self._spread("clipped", where, arrays),
            "dead": self._spread("dead", where, arrays),
            "absmax": self._spread("absmax", where, arrays),
        }
        result = Measured([Row("grad", self._sites, columns)])
        held = used & np.array([site.optimized for site in self._sites], bool)
        if held.any():
            total = float(np.sqrt(np.sum(np.square(norm[held], dtype=np.float64))))
            result.scalars["grad_norm"] = total
            result.scalars["clipped_grad_norm"] = total * float(arrays.get("clip", 1.0))
        if "found" in arrays:
            result.scalars["carried"] = float(arrays["found"].min())
        if any(name.startswith("weight:") for name in where):
            weight = self._spread("weight", where, arrays)
            columns = {
                "norm": weight,
                "absmax": self._spread("extent", where, arrays),
                "nonfinite": (~np.isfinite(weight)).astype(np.float32),
            }
            result.rows.append(Row("weight", self._weights, columns))
        return result
