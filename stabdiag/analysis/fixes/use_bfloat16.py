from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("use-bfloat16", title="Use bfloat16 instead of float16")
def use_bfloat16(run: Run, finding: Finding) -> Change | None:
    """bfloat16 has the range of float32, up to 3e38, so nothing overflows and no loss scaling is needed.

    It costs three bits of precision, and needs hardware that computes in it. It worked when no value is
    infinite and no step is skipped.
    """
    half = [s for kind in ("output", "weight") for s in run.sites(kind) if s.dtype.endswith("float16")]
    half = [site for site in half if "bfloat16" not in site.dtype]
    if not half and "run.loss_scale" not in run:
        return None
    where = f" ({half[0].name} computes in float16)" if half else ""
    return Change(
        f"autocast to bfloat16 and no GradScaler{where}: float16 ends at 65,504",
        "with torch.autocast(device_type=device.type, dtype=torch.bfloat16):\n"
        "    loss = loss_function(model(inputs), targets)\n"
        "loss.backward()  # without a GradScaler",
    )
