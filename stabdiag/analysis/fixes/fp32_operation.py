from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("fp32-operation", title="Compute the overflowing operation in float32")
def fp32_operation(run: Run, finding: Finding) -> Change | None:
    """Leaves autocast for one module: usually a softmax, a norm, an exponential or the logits.

    It costs the speed of that one module. It worked when its `absmax` may pass 65,504 and stays finite.
    """
    reduced = [s for kind in ("output", "weight") for s in run.sites(kind) if "float16" in s.dtype]
    if not reduced and "run.loss_scale" not in run:
        return None
    where = (
        finding.sites[0] if finding.sites else reduced[0].name if reduced else "the first non-finite module"
    )
    return Change(
        f"compute {where} in float32",
        "with torch.autocast(device_type=x.device.type, enabled=False):\n    x = self.layer(x.float())",
    )
