from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

FACTOR = 0.1


@fix("shrink-embedding-gradient", title="Shrink the gradient of the embedding")
def shrink_embedding_gradient(run: Run, finding: Finding) -> Change | None:
    """Lets the embedding follow at a tenth of its gradient, so that no burst of tokens throws it.

    It costs speed of the embedding, which rarely needs it. It worked when its share of the gradient stays
    below a half and the loss passes the batches at which it broke. GLM-130B was trained with 0.1.
    """
    tables = [
        site.module
        for kind in ("grad", "weight")
        for site in run.sites(kind)
        if site.name in finding.sites and "Embedding" in site.module_type
    ]
    if not tables:
        return None
    shown = ", ".join(dict.fromkeys(tables))
    return Change(
        f"multiply the gradient that reaches {shown} by {FACTOR:g}, by a hook on its output",
        f"def shrink(module, inputs, output):\n"
        f"    return {FACTOR:g} * output + {1 - FACTOR:g} * output.detach()\n"
        f"model.get_submodule({tables[0]!r}).register_forward_hook(shrink)",
        {"embedding_gradient": FACTOR},
    )
