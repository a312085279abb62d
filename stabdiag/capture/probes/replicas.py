"""Whether processes still hold the same parameters."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from stabdiag.capture.placement import in_world
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Arrays, Harvest, Measured, Row
from stabdiag.capture.subject import Subject
from stabdiag.capture.tensors import dense, local
from stabdiag.core.site import Site
from stabdiag.core.tier import Tier
from stabdiag.stats.fingerprint import checksum, folded


@probe
class ReplicaProbe(Probe):
    """Kind `replica`, a site a parameter of which other processes hold a copy: `fingerprint`, an integer
    below 2**24 of all bits of all elements after the step.

    No process asks another: the fingerprints are compared when the run is read (`store/replicas.py`).
    """

    id = "replica"
    tier = Tier.STANDARD

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._copies: list[torch.Tensor] = []
        self._sites: list[Site] = []

    def on_change(self) -> None:
        pairs = zip(self.subject.sites, self.subject.parameters, strict=True) if in_world() else ()
        copies = [(s, p) for s, p in pairs if self.subject.placements[p].copies and dense(local(p))]
        self._copies = [parameter for _, parameter in copies]
        self._sites = [replace(site, kind="replica") for site, _ in copies]

    def harvest(self) -> Harvest | None:
        if not self._copies:
            return None
        sums = [checksum(local(parameter)) for parameter in self._copies]
        prints = folded(torch.stack([s.to(sums[0].device) for s in sums]))
        return Harvest({"prints": prints}, partial(self._finish, self._sites))

    def _finish(self, sites: list[Site], arrays: Arrays, _scale: float) -> Measured:
        prints = arrays["prints"]
        return Measured([Row("replica", sites, {"fingerprint": prints, "nonfinite": np.zeros_like(prints)})])
