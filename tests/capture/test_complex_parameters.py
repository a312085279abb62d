"""Complex weights, as a Fourier neural operator has, against the same layer with its parts as real ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.capture import schedule

RARE, SIZE, MODES = 5, 16, 5
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}
OTHERS = {
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}
"""Of which no stability limit is known."""


@pytest.fixture(autouse=True)
def _curvature_every_fifth_step(monkeypatch):
    monkeypatch.setattr(schedule, "RARE_EVERY", RARE)


class Spectral(nn.Module):
    """A filter of the lowest frequencies; `parts`: its weight is kept as real numbers."""

    def __init__(self, values, parts):
        super().__init__()
        self.weight = nn.Parameter(torch.view_as_real(values).clone() if parts else values.clone())

    def forward(self, x):
        weight = self.weight if self.weight.is_complex() else torch.view_as_complex(self.weight)
        spectrum = torch.fft.rfft(x)
        passed = torch.einsum("bik,iok->bok", spectrum[..., :MODES], weight)
        return torch.fft.irfft(nn.functional.pad(passed, (0, spectrum.shape[-1] - MODES)), n=x.shape[-1])


def operator(parts, activation=nn.Tanh):
    torch.manual_seed(0)
    weights = [torch.randn(*shape, MODES, dtype=torch.cfloat) / 3 for shape in ((1, 4), (4, 1))]
    first, last = (Spectral(values, parts) for values in weights)
    return nn.Sequential(first, activation(), nn.Conv1d(4, 4, 1), last)


def trained(parts, make, watch=None, activation=nn.Tanh):
    """The recording, and all that training left."""
    model = operator(parts, activation)
    optimizer = make(model.parameters())
    recording = watch(model, optimizer) if watch else None
    x = torch.randn(32, 1, SIZE, generator=torch.Generator().manual_seed(1))
    y, losses = torch.roll(x, 2, -1).square(), []
    for _ in range(4 * RARE + 2):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if recording is not None:
        recording.close()
    held = [value for state in optimizer.state.values() for value in state.values()]
    return recording, [torch.tensor(losses), *model.state_dict().values(), *held], (model, x, y)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same_to_the_bit_and_nothing_is_said(watch, healthy, name):
    _, bare, _ = trained(False, OPTIMIZERS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording, watched, _ = trained(False, OPTIMIZERS[name], watch)
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))
    healthy(recording.run)
    assert not list(recording.run.events_of("coverage"))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("name", OPTIMIZERS | OTHERS)
def test_what_is_measured_is_what_is_measured_of_the_parts(watch, name, activation):
    (own, _, _), (parts, _, _) = (
        trained(
            parts,
            (OPTIMIZERS | OTHERS)[name],
            lambda *of, parts=parts: watch(*of, name=str(parts)),
            activation,
        )
        for parts in (False, True)
    )
    kinds = ("grad.", "weight.", "update.", "optimizer.", "curvature.", "initial.")
    compared = [s for s in parts.run.series if s.startswith(kinds) and s != "curvature.residual"]
    assert {series.partition(".")[0] + "." for series in compared} == set(kinds)
    for series in compared:
        a, b = own.run.table(series), parts.run.table(series)
        assert a.names == b.names
        scale = np.nanmax(np.abs(b.values), initial=0.0)
        tolerance = {"rtol": 0.02 if series.startswith("curvature") else 2e-3, "atol": 1e-4 * scale}
        np.testing.assert_allclose(a.values, b.values, **tolerance, err_msg=series)


def test_the_curvature_is_that_of_the_exact_hessian_by_the_parts(watch):
    recording, _, (_, x, y) = trained(False, lambda p: torch.optim.SGD(p, lr=0.0), watch)
    model = operator(True).double()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat):
        split = flat.split([shape.numel() for shape in shapes])
        named = {n: part.view(s) for n, part, s in zip(names, split, shapes, strict=True)}
        return nn.functional.mse_loss(torch.func.functional_call(model, named, (x.double(),)), y.double())

    hessian = torch.func.hessian(loss)(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    found = recording.run.table("curvature.lambda_max").values[:, 0]
    assert np.nanmax(found) == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=0.02)
