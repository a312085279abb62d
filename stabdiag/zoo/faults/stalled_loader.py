from __future__ import annotations

import time

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "stalled-loader",
    signatures=("training-stall",),
    causes=(),
    fixes=(),
    doses=(0.1, 3.0, 8.0),
    found_from=8.0,
    least="info",
    recurs=False,
)
def plant(training: Training, dose: float) -> Planted:
    """At one step the next batch takes seconds to come."""
    at = spots.moment(training)
    spots.once(training, at, lambda: time.sleep(dose))
    return Planted(at, shows=3)
