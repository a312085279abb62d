from __future__ import annotations

from collections.abc import Sequence

from stabdiag.analysis.anatomy import RECURRENT, modules, of_type
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "recurrent-instability",
    title="The recurrence multiplies the signal at every time step",
    fixes=("clip-gradients", "gated-recurrence", "rescale-init", "lower-learning-rate"),
)
def recurrent_instability(run: Run, finding: Finding) -> Weight | None:
    """The same recurrent matrix is applied at each time step, so its gain is raised to the length.

    Above a gain of 1 (√2 before a ReLU) the state or its gradient explodes, below it vanishes. The
    fault sits in a recurrent layer and its gradient is heavy-tailed: long calm, then jumps by orders
    of magnitude. Plain RNNs suffer far more than LSTM and GRU, whose norms jump 20-fold in good health.

    Of a value that is not finite it is told only where the first one came out of a recurrent layer.

    Reference: Pascanu et al., On the difficulty of training recurrent neural networks,
    https://arxiv.org/abs/1211.5063
    """
    recurrent = of_type(run, RECURRENT)
    if not recurrent:
        return None
    if finding.signature == "nonfinite-origin" and not _lies_within(finding.sites[:1], recurrent):
        return None
    case, types = Case(), modules(run)
    plain = [name for name in recurrent if types[name].startswith("RNN")]
    named = plain[0] if plain else recurrent[0]
    case.speaks_for(0.5 if plain else 0.25, f"{named or 'the model'} is a {types[named]}")
    owners = {site.rpartition(".")[0] for site in finding.sites} | set(finding.sites)
    if owners.intersection(recurrent):
        case.speaks_for(0.4, "it began inside the recurrent layer")
    elif finding.sites:
        case.speaks_against(0.5, f"it began at {finding.sites[0]}, outside the recurrent layer")
    sensitivity = finding.facts.get("sensitivity", 0.0)
    case.speaks_for(
        0.5 * ramp(sensitivity, 300, 1e5), "the loss was as sensitive to it as to a power of its gain"
    )
    jump = history(run, "run.grad_norm").jump(finding.onset_step)
    if jump is not None:
        case.speaks_for(0.4 * ramp(jump, 10, 1e3), f"the gradient norm jumped {figure(jump)}-fold")
    return case.weight()


def _lies_within(sites: Sequence[str], layers: Sequence[str]) -> bool:
    """Whether one of `sites`, modules or parameters, is one of the `layers` or belongs to it."""
    return any(
        site.partition("[")[0] == layer or site.startswith((f"{layer}.", f"{layer}["))
        for site in sites
        for layer in layers
    )
