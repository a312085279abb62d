"""Places for the synthetic runs beside the signatures."""

from __future__ import annotations

from stabdiag.core.site import Site


def weights(
    kind: str, count: int, *, module_type: str = "Linear", left_out: tuple[int, ...] = ()
) -> list[Site]:
    """Weight matrices `layers.<i>.weight` in forward order; those in `left_out` are in no optimizer."""
    return [
        Site(kind, f"layers.{i}.weight", module_type, (64, 64), order=i, optimized=i not in left_out)
        for i in range(count)
    ]


def outputs(count: int, module_type: str = "Linear") -> list[Site]:
    """Module outputs `layers.<i>` in forward order."""
    return [Site("output", f"layers.{i}", module_type, order=i) for i in range(count)]
