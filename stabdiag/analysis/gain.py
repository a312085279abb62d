"""Weights that begin far wider than their fan-in bears."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from stabdiag.analysis.draws import drawn
from stabdiag.analysis.memory import once
from stabdiag.analysis.pretrained import pretrained
from stabdiag.core.run import Run
from stabdiag.core.site import Site

WIDE = 10.0
"""Gain from which on a layer begins too wide: He's initialization has 1.4, Xavier's with the gain of tanh
1.7, PyTorch's own 0.6. Ten multiply the variance of a signal by a hundred."""

MATRICES = {
    "weight": ("Linear", "Conv1d", "Conv2d", "Conv3d"),
    "in_proj_weight": ("MultiheadAttention",),
    "weight_ih": ("RNN", "LSTM", "GRU"),
    "weight_hh": ("RNN", "LSTM", "GRU"),
}
"""Parameters, up to the number of their layer, whose first dimension is that of the outputs, and the modules
that own them. Rows of an embedding are looked up, and parametrizations scale what they hold."""


class Gain(NamedTuple):
    """Root mean square of a weight before the first step, times the root of its fan-in: what it multiplies
    the rms of independent inputs by."""

    site: Site
    value: float


@once
def wide_weights(run: Run) -> list[Gain]:
    """Those that begin with a gain of `WIDE` and more, in the order of the forward pass. Of a model that was
    trained before only those that are trained on and still as they were drawn: a new head, nothing loaded."""
    if "initial.rms" not in run:
        return []
    table = run.table("initial.rms")
    if not len(table.steps):
        return []
    gains = [
        Gain(site, float(rms) * math.sqrt(math.prod(site.shape[1:])))
        for site, rms in zip(table.sites, table.values[0].astype(np.float64), strict=True)
        if _is_matrix(site)
    ]
    if pretrained(run) is not None:
        gains = [gain for gain in gains if gain.site.trainable and drawn(run).get(gain.site)]
    return sorted((gain for gain in gains if WIDE <= gain.value < math.inf), key=lambda gain: gain.site.order)


def _is_matrix(site: Site) -> bool:
    name = re.sub(r"_l\d+(_reverse)?$", "", site.name.rpartition(".")[2])
    return len(site.shape) >= 2 and site.module_type in MATRICES.get(name, ())
