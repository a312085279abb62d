from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

CAP = 50.0


@fix("attention-softcap", title="Cap the logits of attention smoothly")
def attention_softcap(run: Run, finding: Finding) -> Change | None:
    """Passes the logits of attention through cap · tanh(logit / cap), so that none exceeds the cap.

    It costs fused attention kernels, unless they know it (flex attention does); the gradient fades where
    logits sit at the cap. It worked when the largest logit levels off below the cap and the loss falls again.
    Gemma 2 is configured with `attn_logit_softcapping`.
    """
    layers = [site.name for site in run.sites("attention") if site.name in finding.sites]
    peak = max(
        (p[1] for name in layers if (p := history(run, "attention.max_logit", name).peak(0, run.steps))),
        default=0.0,
    )
    if peak <= CAP:
        return None
    return Change(
        f"cap the attention logits at {figure(CAP)}: they reached {figure(peak)} in {layers[0]}",
        "from torch.nn.attention.flex_attention import flex_attention\n"
        "\n"
        "def capped(score, batch, head, query, key):\n"
        f"    return {CAP:g} * torch.tanh(score / {CAP:g})\n"
        "\n"
        "output = flex_attention(query, key, value, score_mod=capped)  # with the block mask as before",
    )
