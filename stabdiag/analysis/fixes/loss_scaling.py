from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("loss-scaling", title="Scale the loss, so that gradients stay above the smallest float16")
def loss_scaling(run: Run, finding: Finding) -> Change | None:
    """Multiplies the loss before the backward pass and divides the gradients after it, as far as they fit.

    It costs a look at all gradients a step, and the few steps that are withheld. It worked when
    `run.loss_scale` settles above 128 and few steps are withheld. In the Hugging Face Trainer: `fp16=True`;
    in Lightning: `precision="16-mixed"`.
    """
    scale = history(run, "run.loss_scale").finite()
    half = [s for s in run.sites("output") if "float16" in s.dtype and "bfloat16" not in s.dtype]
    if not len(scale) and not half:
        return None
    if len(scale):
        told = f"start the scale at 2^12 and do not let it fall below 1: it ended at {scale.values[-1]:.3g}"
    else:
        share = finding.facts.get("underflow", 0.0)
        told = f"use a gradient scaler: {half[0].name} computes in float16 without one"
        told += f", and {share:.0%} of the gradients would be zero" if share else ""
    return Change(
        f'{told}; Hugging Face: fp16=True; Lightning: precision="16-mixed"',
        'scaler = torch.amp.GradScaler("cuda", init_scale=2.0**12, growth_interval=1000)\n'
        "scaler.scale(loss).backward()\n"
        "scaler.unscale_(optimizer)  # before clipping\n"
        "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
        "scaler.step(optimizer)\n"
        "scaler.update()\n"
        "if scaler.get_scale() < 1:\n"
        '    raise RuntimeError("the loss scale has collapsed")',
        {"scale_floor": 1.0} if len(scale) else {},
    )
