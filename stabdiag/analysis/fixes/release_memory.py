from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("release-memory", title="Keep numbers, not tensors with their graphs")
def release_memory(run: Run, finding: Finding) -> Change:
    """Takes plain numbers out of what is kept from each step, and finds what holds on to the rest.

    It costs nothing. It worked when `run.memory` is level after the first epoch.
    """
    facts = finding.facts
    told = "memory rises"
    if "per_step" in facts:
        told = f"{figure(facts['per_step'])} MiB are kept from each step"
    return Change(
        f"keep loss.item() instead of loss, detach what is stored, empty lists: {told}",
        "total += loss.item()  # not: total += loss\n"
        "outputs.append(output.detach().cpu())\n"
        "\n"
        "# what is alive, and what holds it:\n"
        "alive = [o for o in gc.get_objects() if torch.is_tensor(o)]\n"
        "print(len(alive), collections.Counter(tuple(t.shape) for t in alive).most_common(5))",
    )
