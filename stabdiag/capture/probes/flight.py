"""What every step is made of, for the flight recorder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from stabdiag.capture.clipping import Clip
from stabdiag.capture.probe import Probe, probe
from stabdiag.capture.row import Harvest
from stabdiag.core.tier import Tier


@probe
class FlightProbe(Probe):
    """Writes no rows: it hands on what the recorder's `Flight` wants to know."""

    id = "flight"
    tier = Tier.NONE
    _tier = Tier.NONE

    def arm(self, tier: Tier) -> None:
        self._tier = tier

    def on_change(self) -> None:
        self.subject.flight.parameters = tuple(site.name for site in self.subject.sites)
        self.subject.flight.indices = self.subject.indices

    def on_call(
        self, prefix: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.subject.flight.on_call(self._tier, prefix, module, args, kwargs)

    def on_clip(self, clip: Clip) -> None:
        self.subject.flight.on_clip(clip)

    def harvest(self) -> Harvest | None:
        return self.subject.flight.close(self._tier)
