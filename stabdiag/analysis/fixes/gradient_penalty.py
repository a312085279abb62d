from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("gradient-penalty", title="Bound the slope of the critic")
def gradient_penalty(run: Run, finding: Finding) -> Change | None:
    """Pulls the norm of the critic's gradient with respect to its input towards 1, between real and generated
    samples.

    It costs a second backward pass of the critic. It worked when the gradient norms of both players level
    off. Spectral normalization of the critic's layers bounds the slope as well, and costs less.

    Reference: Gulrajani et al., Improved Training of Wasserstein GANs, https://arxiv.org/abs/1704.00028
    """
    if not run.sites("side"):
        return None
    grown = finding.facts.get("grad_norm_growth")
    saw = f": the gradient norm of {finding.sites[0]} grew {figure(grown)}-fold" if grown else ""
    return Change(
        f"a gradient penalty of weight 10 in the loss of the critic{saw}",
        "share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)\n"
        "between = (share * real + (1 - share) * fake.detach()).requires_grad_()\n"
        "(slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)\n"
        "loss = loss + 10.0 * (slope.flatten(1).norm(dim=1) - 1).square().mean()",
    )
