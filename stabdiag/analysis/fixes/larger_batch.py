from __future__ import annotations

import math

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

USUAL, MOST = 4, 64


@fix("larger-batch", title="Gather more samples for each update")
def larger_batch(run: Run, finding: Finding) -> Change:
    """Averages the gradients of several batches before a step, so that more of it is signal.

    It costs as many times the computation a step, and is worth it up to the noise scale. It worked when the
    cosine of gradients in a row is above 0.05, and the loss falls further.
    """
    before, now = finding.facts.get("samples_before"), finding.facts.get("samples")
    count = USUAL
    if before and now and before > now > 0:
        count = min(max(math.ceil(before / now), 2), MOST)
    noise = finding.facts.get("noise_to_signal")
    saw = f": noise was {figure(noise)} times the signal" if noise and noise > 1 else ""
    back = f", as many samples as the {figure(before)} before" if before and now else ""
    return Change(
        f"accumulate the gradients of {count} batches{back}{saw} (Trainer: "
        f"gradient_accumulation_steps={count}; "
        f"Lightning: accumulate_grad_batches={count})",
        f"(loss / {count}).backward()  # of each batch\n"
        f"if (step + 1) % {count} == 0:\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad(set_to_none=True)",
        {"accumulate": float(count)},
    )
