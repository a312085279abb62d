from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("synchronize-replicas", title="Make the copies equal, and keep them so")
def synchronize_replicas(run: Run, finding: Finding) -> Change:
    """Broadcasts all parameters from rank 0, and lets all ranks decide together whether a step is skipped.

    It costs one broadcast of the model. It worked when the fingerprints agree from then on; if they part
    again, look for what one rank alone does: a condition on the rank, a parameter that is used outside
    the wrapper's forward pass.
    """
    same = finding.facts.get("same_until", -1)
    start = f"a checkpoint at or before step {same:.0f}" if same >= 0 else "the parameters of rank 0"
    return Change(
        f"start again from {start} on all ranks",
        "for parameter in model.parameters():\n"
        "    torch.distributed.broadcast(parameter.data, src=0)\n"
        "\n"
        "skip = torch.tensor(float(skip))\n"
        "torch.distributed.all_reduce(skip, op=torch.distributed.ReduceOp.MAX)",
    )
