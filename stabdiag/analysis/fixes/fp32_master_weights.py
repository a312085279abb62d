from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("fp32-master-weights", title="Keep the weights in 32 bits, and compute in 16")
def fp32_master_weights(run: Run, finding: Finding) -> Change | None:
    """Leaves the parameters in float32 and lets autocast choose the format of each operation.

    It costs four bytes more a parameter. It worked when `update.unchanged` is gone, as 32-bit weights have
    none. In the Hugging Face Trainer: load in float32 and set `bf16=True`; in Lightning:
    `precision="bf16-mixed"` rather than `"bf16-true"`.
    """
    sites = run.sites("weight") or run.sites("update")
    narrow = [site for site in sites if site.dtype.endswith("float16")]
    if not narrow:
        return None
    share = finding.facts.get("unchanged", 0.0)
    lost = (
        f": {share:.0%} of the coordinates of {finding.sites[0]} did not move"
        if share and finding.sites
        else ""
    )
    dtype = narrow[0].dtype.removeprefix("torch.")
    return Change(
        f"{len(narrow)} of {len(sites)} parameters are {dtype}; keep them in float32{lost}; Hugging Face: "
        'bf16=True on a model in float32; Lightning: precision="bf16-mixed"',
        "model = model.float()\n"
        "with torch.autocast(device_type=device.type, dtype=torch.bfloat16):\n"
        "    loss = loss_function(model(inputs), targets)\n"
        "loss.backward()",
    )
