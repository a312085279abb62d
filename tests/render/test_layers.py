from __future__ import annotations

import numpy as np

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.layers import layers, site_slugs, unique_slugs


def test_slugs_are_readable_and_never_equal() -> None:
    slugs = unique_slugs(["a.b", "a-b", "A_B", "", "größe", "<script>"])
    assert slugs["a.b"] == "a-b"
    assert slugs["<script>"] == "script"
    assert len(set(slugs.values())) == 6


def test_a_finding_is_listed_at_the_layers_of_its_sites(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    found = {layer.name: layer for layer in layers(failed_run, failed_diagnosis)}
    assert found["blocks.7.mlp"].findings == [0]
    assert found["blocks.0.ln_1"].findings == [2]
    assert found["wte"].findings == [4], "a parameter's finding belongs to the module that owns it"
    assert site_slugs(found.values(), failed_run)["blocks.3.mlp.fc.weight"] == "blocks-3-mlp-fc"


def test_a_layer_joins_the_gradients_and_updates_of_its_parameters(failed_diagnosis: Diagnosis) -> None:
    sites = {
        kind: [Site(kind, f"fc.{name}", shape=(2,), order=0) for name in ("weight", "bias")]
        for kind in ("grad", "update")
    }
    run = run_of({"grad.norm": [[3.0, 4.0]], "update.ratio": [[0.1, 0.2]]}, sites=sites)
    (layer,) = layers(run, failed_diagnosis)
    assert layer.gradient is not None
    assert layer.update is not None
    assert layer.gradient.curve.values.tolist() == [5.0]
    assert layer.gradient.last == 5.0
    assert np.allclose(layer.update.curve.values, 0.2)
    assert layer.size == 4
    assert [site.name for site in layer.parameters] == ["fc.bias", "fc.weight"]
