from __future__ import annotations

from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("stop-overwriting", title="Take out what writes to the weights outside of the optimizer")
def stop_overwriting(run: Run, finding: Finding) -> Change | None:
    """Finds the line that changes a weight between two steps of the optimizer, and removes it.

    It costs a search: PyTorch counts the writes to a tensor in `_version`, so that a few assertions say
    between which two lines it is. It worked when the norm of the weight follows its updates again.
    """
    site = next(iter(finding.sites), "")
    if not site:
        return None
    return Change(
        f"find what writes to {site} beside the optimizer, since step {finding.onset_step}, and take it out",
        f"weight = model.get_parameter({site!r})\n"
        "version = weight._version  # just after optimizer.step()\n"
        "...\n"
        "assert weight._version == version  # before the next one, and in between: where does it fail?",
    )
