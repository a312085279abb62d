"""Models that are not a stack of layers: the recorder has a row for each step, or nothing to say."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn


class Holder(nn.Module):
    """A module made of children and a forward pass."""

    def __init__(self, forward, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        self._function = forward

    def forward(self, x):
        return self._function(self, x)


class Counting(nn.Module):
    """Integer buffers and one that changes at each step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


def with_odd_outputs() -> nn.Module:
    def forward(_, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of prototypes
            return (
                x,
                torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
                torch.ones(2, device="meta"),
                torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
                torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
                torch.eye(2).to_sparse(),
                torch.eye(2).to_sparse_csr(),
                {"cache": None, "index": torch.ones(1, dtype=torch.long)},
            )

    odd = Holder(forward)
    return Holder(lambda self, x: self.odd(self.layer(x))[0], odd=odd, layer=nn.Linear(3, 3))


SHARED = nn.Linear(3, 3)
FLOATS = torch.ones(4, 3)
MODELS = {
    "one parameter": (lambda: nn.Linear(3, 1, bias=False), FLOATS),
    "a scalar parameter": (lambda: Holder(lambda s, x: x * s.a, a=nn.Parameter(torch.ones(()))), FLOATS),
    "shared modules": (lambda: nn.Sequential(SHARED, nn.ReLU(), SHARED), FLOATS),
    "a module that never runs": (
        lambda: Holder(lambda s, x: s.used(x), used=nn.Linear(3, 3), idle=nn.Linear(3, 3)),
        FLOATS,
    ),
    "complex weights": (
        lambda: Holder(lambda s, x: s.inner(x + 0j).abs(), inner=nn.Linear(3, 2, dtype=torch.complex64)),
        FLOATS,
    ),
    "doubles": (lambda: nn.Linear(3, 1, dtype=torch.float64), FLOATS.double()),
    "integer buffers": (Counting, torch.randn(4, 3, generator=torch.Generator().manual_seed(0))),
    "sparse gradients": (lambda: nn.EmbeddingBag(9, 3, sparse=True, mode="sum"), torch.tensor([[1, 8]])),
    "odd outputs": (with_odd_outputs, FLOATS),
    "an empty parameter": (
        lambda: Holder(lambda s, x: s.layer(x), layer=nn.Linear(3, 1), none=nn.Parameter(torch.zeros(0))),
        FLOATS,
    ),
    "a recurrent network": (lambda: Holder(lambda s, x: s.rnn(x)[0], rnn=nn.LSTM(3, 4)), torch.ones(5, 2, 3)),
    "spectral normalization": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
        FLOATS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_each_step_has_its_loss_and_gradients_and_nothing_is_said(
    session, found, train, healthy, recwarn, kind
):
    make, batch = MODELS[kind]
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    train(model, optimizer, [batch] * 3)
    run = found()
    healthy(run)
    assert run.steps == 3
    assert np.isfinite(run.table("run.loss").first()).all()
    assert (run.table("run.grad_norm").first() > 0).all()
    assert np.isfinite(run.table("weight.norm").values).all()
    assert np.isfinite(run.table("output.rms").values).any()
    assert (run.table("update.norm").values > 0).any(axis=1).all()
    ours = [str(w.message) for w in recwarn if "stabdiag" in w.filename]
    assert ours == []


def test_meta_and_lazy_parameters_are_passed_over(watch, healthy):
    lazy, ghost = nn.LazyLinear(2), nn.Linear(2, 2, device="meta")
    model = nn.ModuleList([lazy, ghost, nn.Linear(2, 2)])
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        model[2](lazy(torch.ones(1, 3))).sum().backward()
        optimizer.step()
    healthy(recording.run)
    assert recording.run.steps == 1


def test_a_model_without_parameters_is_watched_without_a_word(watch, healthy):
    with watch(nn.ReLU()) as recording:
        x = torch.ones(2, requires_grad=True)
        nn.ReLU()(x).sum().backward()
    healthy(recording.run)
    assert recording.findings == ()


def test_training_of_the_input_alone_is_recorded(session, found, healthy):
    """As in style transfer and adversarial examples: the network is frozen, the picture is optimized."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).requires_grad_(False)
    picture = torch.randn(1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([picture], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(picture).square().sum().backward()
        optimizer.step()
    healthy(found())
    assert found().steps == 3
    assert [site.name for site in found().sites("update")] == ["parameters.0"]
