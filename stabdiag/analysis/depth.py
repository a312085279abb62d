"""The layers of a model in forward order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.site import Site

SHORT_RECORD = 512


def layers(sites: Sequence[Site]) -> list[int]:
    """Indices of the trainable weight matrices among parameter sites, in forward order.

    Embeddings (whose rows are mostly untouched), vectors (biases, gains) and parameters of modules
    that never ran are left out. A parameter whose shape is unknown counts as a matrix.
    """
    listed = [
        (site.order, i)
        for i, site in enumerate(sites)
        if site.trainable and site.order >= 0 and len(site.shape) != 1 and "Embedding" not in site.module_type
    ]
    return [i for _, i in sorted(listed)]


def evenly(count: int, at_most: int = SHORT_RECORD) -> NDArray[np.int64]:
    """At most `at_most` positions below `count`, evenly spread, the first and the last among them.

    What holds of a whole run is read off these, so that its cost does not grow with the run.
    """
    if count <= at_most:
        return np.arange(count)
    return np.linspace(0, count - 1, at_most).astype(np.int64)


def telling(names: Sequence[str], weights: NDArray[np.floating], at_most: int = 5) -> tuple[str, ...]:
    """The names with the largest weights, the largest first; those without a number are left out."""
    order = np.argsort(-np.nan_to_num(weights, nan=-np.inf), kind="stable")
    return tuple(names[i] for i in order[:at_most] if not np.isnan(weights[i]))
