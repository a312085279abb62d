from __future__ import annotations

from stabdiag.analysis.batches import usual_scale
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("normalize-input", title="Normalize the inputs")
def normalize_input(run: Run, finding: Finding) -> Change | None:
    """Subtracts the mean and divides by the standard deviation of the training data.

    It costs nothing, but validation and inference must do the same. It worked when `batch.rms` is
    near 1.
    """
    scale = usual_scale(run)
    if scale is None:
        return None
    name, rms, mean = scale
    deviation = max(rms**2 - mean**2, 0.0) ** 0.5 or rms
    if 0.2 < rms < 5:
        return None
    return Change(
        f"({name} − {figure(mean)}) / {figure(deviation)}: its rms was {figure(rms)}, where 1 is meant",
        f"inputs = (inputs - {mean:.4g}) / {deviation:.4g}  # mean and standard deviation of the training "
        "data",
    )
