from __future__ import annotations

from stabdiag.analysis.anatomy import matrices, normalized
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("add-normalization", title="Add normalization layers")
def add_normalization(run: Run, finding: Finding) -> Change | None:
    """Brings the activations back to unit scale after each layer, whatever the weights do.

    It costs a few percent of time, and a retraining. LayerNorm or RMSNorm depend on no other sample;
    BatchNorm wants at least 16 samples a batch. It worked when the rms of the outputs is level through
    the depth and stays so.
    """
    if normalized(run):
        return None
    sites = run.sites("weight") or run.sites("grad")
    hidden = [sites[i] for i in matrices(sites)[:-1]]
    if sites and not hidden:
        return None
    named = next((site for site in hidden if site.name in finding.sites), hidden[0] if hidden else None)
    width = named.shape[0] if named and named.shape else 0
    after = f" after module {named.module}" if named and named.module else " after each hidden layer"
    return Change(
        f"normalize the activations of the {len(hidden) or 'hidden'} hidden layers, beginning{after}: "
        "none of them is",
        f"norm = torch.nn.LayerNorm({width or 'width'})\n"
        "# in forward, before the activation function:\n"
        "x = activation(norm(linear(x)))",
    )
