"""The shape of a tensor's distribution, and what narrower formats would lose of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

QUANTILES: Mapping[str, float] = {"q001": 0.001, "q01": 0.01, "q50": 0.5, "q99": 0.99, "q999": 0.999}
FORMATS: Mapping[str, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
OUTLIER = 6.0


def distribution_statistics(sample: NDArray[np.float32]) -> dict[str, float]:
    """Of the finite values of `sample`; NaN where there are none.

    q001 … q999       quantiles, from 0.001 to 0.999
    kurtosis          fourth standardised moment: 3 of a normal distribution, 1 at least
    outliers          share beyond six standard deviations from the mean; 2e-9 of a normal distribution
    underflow_<format>  share of the values other than zero that the format rounds to zero
    overflow_<format>   share of the values beyond the largest number of the format
    """
    values = sample[np.isfinite(sample)].astype(np.float64)
    if not values.size:
        lost = (f"{way}_{name}" for name in FORMATS for way in ("underflow", "overflow"))
        return dict.fromkeys([*QUANTILES, "kurtosis", "outliers", *lost], float("nan"))
    found = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    if variance > 0:
        found["kurtosis"] = float(np.mean((centred / np.sqrt(variance)) ** 4))
        found["outliers"] = float(np.mean(np.abs(centred) > OUTLIER * np.sqrt(variance)))
    else:
        found["kurtosis"], found["outliers"] = float("nan"), 0.0
    magnitudes = np.abs(values)
    present = magnitudes[magnitudes > 0]
    for name, dtype in FORMATS.items():
        limits = torch.finfo(dtype)
        # Halfway to the smallest number, rounding to even gives zero.
        zeroed = present <= limits.smallest_normal * limits.eps / 2
        found[f"underflow_{name}"] = float(zeroed.mean()) if present.size else 0.0
        found[f"overflow_{name}"] = float(np.mean(magnitudes > limits.max))
    return found
