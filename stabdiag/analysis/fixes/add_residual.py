from __future__ import annotations

from stabdiag.analysis.anatomy import gradient_slope
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("add-residual", title="Add skip connections")
def add_residual(run: Run, finding: Finding) -> Change | None:
    """Gives the gradient a way around each block, so that the gains of layers add up, not multiply.

    It costs a retraining and equal widths (or a projection). It worked when the gradient norm differs
    by less than a factor of 10 between the first and the last block.
    """
    slope = gradient_slope(run, finding.onset_step)
    if slope is None or slope.layers < 4:
        return None
    return Change(
        f"add the input of each of the {slope.layers} layers to its output: the gradient norm changes by "
        f"{abs(slope.per_layer):.2f} decades a layer",
        "def forward(self, x):\n    for block in self.blocks:\n        x = x + block(x)\n    return x",
    )
