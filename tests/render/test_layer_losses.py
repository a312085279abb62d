"""What a copy of a model loses, as text: names that are too long for a line."""

from __future__ import annotations

from stabdiag.core.layer_loss import LayerLoss, LayerLosses, Loss
from stabdiag.render.layer_losses import text

LOST = Loss(0.1, 0.99, 20.0)


def test_of_a_long_name_the_end_is_kept_and_of_a_long_type_the_beginning():
    name = "encoder." * 8 + "layers.3.mlp"
    layer = LayerLoss(name, "Linear", "DynamicQuantizedLinearWithObserver" * 2, 0, 1, False, LOST, LOST)
    told = text(LayerLosses((layer,), (), (), (), ()), width=100)
    (row,) = (line for line in told.splitlines() if "20.0 dB" in line and not line.startswith("Most"))
    assert len(row) <= 100
    names, _, types = row.partition("layers.3.mlp  ")
    assert names.startswith("…")
    assert types.startswith("Linear → ")
    assert types.split("  ")[0].endswith("…")
