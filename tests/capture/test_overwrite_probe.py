"""Writes to parameters that no optimizer makes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

STEPS = 30
AT = 12


def told(
    watch, healthy, act, *, when=lambda step: step == AT, model=None, optimizer=torch.optim.AdamW, **options
):
    """The events of a training in which `act(model)` comes after the optimizer's step `AT` - 1."""
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    with watch(model, optimizer, **options) as recording:
        for step in range(STEPS):
            if when(step):
                act(model)
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    healthy(recording.run)
    return list(recording.run.events_of("overwritten"))


@torch.no_grad()
def reinitialize(model):
    nn.init.normal_(model[2].weight)


@torch.no_grad()
def load(model):
    model.load_state_dict({name: torch.zeros_like(p) for name, p in model.state_dict().items()})


@pytest.mark.parametrize("options", [{}, {"every": 10}, {"every": 1}], ids=str)
def test_a_write_is_told_at_its_step_whatever_is_recorded(watch, healthy, options):
    (event,) = told(watch, healthy, reinitialize, **options)
    assert (event.step, event.data["names"], event.data["count"]) == (AT, ["2.weight"], 1)
    assert event.data["share"] == pytest.approx(16 / 58, abs=1e-4)


def test_all_that_is_loaded_is_counted(watch, healthy):
    (event,) = told(watch, healthy, load)
    assert (event.data["count"], event.data["share"]) == (4, 1.0)


def test_what_no_optimizer_holds_is_watched_too(watch, healthy):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].requires_grad_(False)

    @torch.no_grad()
    def merge(model):
        model[0].weight.add_(1.0)

    (event,) = told(watch, healthy, merge, model=model)
    assert event.data["names"] == ["0.weight"]


@pytest.mark.parametrize(
    "optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor, torch.optim.RMSprop]
)
def test_what_training_does_is_none(watch, healthy, optimizer):
    def validate(model):
        model.eval()
        with torch.no_grad():
            model(torch.randn(3, 4))
        copy.deepcopy(model).load_state_dict(model.state_dict())
        model.train()

    assert told(watch, healthy, validate, when=lambda step: True, optimizer=optimizer, every=1) == []


def test_what_the_script_does_all_the_time_is_told_a_few_times(watch, healthy):
    @torch.no_grad()
    def clip(model):
        for p in model.parameters():
            p.clamp_(-1, 1)

    assert len(told(watch, healthy, clip, when=lambda step: step > 0)) == 8


def test_optimizers_that_share_parameters_do_not_overwrite_each_other(watch, healthy):
    trunk, heads = nn.Linear(4, 4), [nn.Linear(4, 1) for _ in range(2)]
    model = nn.ModuleList([trunk, *heads])
    pairs = [(head, torch.optim.Adam([*trunk.parameters(), *head.parameters()], lr=1e-3)) for head in heads]
    with watch(model, [optimizer for _, optimizer in pairs]) as recording:
        for _ in range(10):
            for head, optimizer in pairs:
                optimizer.zero_grad()
                head(trunk(torch.randn(8, 4))).square().mean().backward()
                optimizer.step()
    healthy(recording.run)
    assert not list(recording.run.events_of("overwritten"))


def test_a_step_on_the_gradients_of_another_pass_is_no_write_of_the_script(watch):
    first, second = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (first, second)]
    with watch(nn.Sequential(first, second), optimizers) as recording:
        for step in range(12):
            second(first(torch.randn(8, 4))).square().mean().backward()
            if step < 3:
                optimizers[1].step()
            optimizers[0].step()
            if step % 3 == 2:
                optimizers[1].step()
            for optimizer in optimizers:
                optimizer.zero_grad()
    assert not list(recording.run.events_of("overwritten"))
