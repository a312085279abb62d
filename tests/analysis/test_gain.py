"""Weights that begin too wide for their fan-in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.gain import wide_weights
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

INITIALIZATIONS = {
    "PyTorch's own": lambda weight: nn.init.kaiming_uniform_(weight, a=5**0.5),
    "He": nn.init.kaiming_normal_,
    "Xavier for tanh": lambda weight: nn.init.xavier_normal_(weight, gain=5 / 3),
    "orthogonal": nn.init.orthogonal_,
    "GPT-2": lambda weight: nn.init.normal_(weight, std=0.02),
    "identity": nn.init.eye_,
    "zeros": nn.init.zeros_,
}


def begun(*weights: tuple[str, str, torch.Tensor]) -> Run:
    sites = [
        Site("initial", name, kind, tuple(w.shape), order=i) for i, (name, kind, w) in enumerate(weights)
    ]
    rms = np.array([[float(w.square().mean().sqrt()) for *_, w in weights]])
    return run_of({"run.loss": np.exp(-np.arange(200) / 50), "initial.rms": rms}, sites={"initial": sites})


@pytest.mark.parametrize("initialize", INITIALIZATIONS.values(), ids=INITIALIZATIONS)
@pytest.mark.parametrize("shape", [(64, 1024), (1024, 64), (32, 16, 3, 3)], ids=str)
def test_no_usual_initialization_is_too_wide(initialize, shape):
    weight = torch.empty(shape)
    if len(shape) > 2 and initialize is nn.init.eye_:
        initialize = nn.init.dirac_
    initialize(weight)
    assert not wide_weights(begun(("layer.weight", "Linear", weight)))


def test_the_gain_is_what_a_layer_multiplies_a_signal_by():
    torch.manual_seed(0)
    layer = nn.Linear(256, 256, bias=False)
    nn.init.normal_(layer.weight)
    (gain,) = wide_weights(begun(("layer.weight", "Linear", layer.weight.detach())))
    out = layer(torch.randn(1000, 256))
    assert gain.value == pytest.approx(float(out.detach().std()), rel=0.02)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tokens.weight", "Embedding"),
        ("mix.parametrizations.weight.original0", "ParametrizedLinear"),
        ("place", "Transformer"),
    ],
)
def test_what_is_looked_up_added_or_scaled_has_no_gain(name, module):
    assert not wide_weights(begun((name, module, torch.full((256, 256), 1.0))))


@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_ih_l1_reverse"])
def test_recurrent_weights_have_one_in_each_layer_and_direction(name):
    (gain,) = wide_weights(begun((f"rnn.{name}", "LSTM", torch.full((256, 64), 2.0))))
    assert gain.value == 16.0


def test_one_that_begins_too_wide_is_a_note_that_names_it_until_something_comes_of_it():
    weights = [(f"layers.{i}.weight", "Linear", torch.full((64, 64), 0.07)) for i in range(4)]
    weights[2] = ("layers.2.weight", "Linear", torch.full((64, 64), 7.0))
    (finding,) = diagnose(begun(*weights)).findings
    assert (finding.signature, finding.severity) == ("bad-initialization", Severity.info)
    assert finding.sites == ("layers.2.weight",)
    assert finding.causes[0].id == "bad-init-scale"
    assert "56" in finding.message
