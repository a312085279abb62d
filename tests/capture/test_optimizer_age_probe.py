from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn


def train(watch, optimizers, steps=4, **options):
    """Trains a layer with each optimizer that `optimizers(parameters)` yields for `steps` steps."""
    model = nn.Linear(3, 2)
    with watch(model, **options) as recording:
        for optimizer in optimizers(list(model.parameters())):
            for _ in range(steps):
                optimizer.zero_grad()
                model(torch.randn(4, 3)).square().mean().backward()
                optimizer.step()
    return recording


def ages(recording):
    return recording.run.table("run.optimizer_age").first().tolist()


MAKERS = [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), torch.optim.Rprop]


@pytest.mark.parametrize("make", MAKERS)
def test_the_age_counts_steps_and_is_young_again_once_the_state_is_cleared(watch, healthy, make):
    def optimizers(parameters):
        optimizer = make(parameters)
        yield optimizer
        optimizer.state.clear()
        yield optimizer

    recording = train(watch, optimizers)
    healthy(recording.run)
    assert ages(recording) == [1, 2, 3, 4, 1, 2, 3, 4]


@pytest.mark.parametrize("make", MAKERS)
def test_a_new_optimizer_in_the_place_of_an_old_one_is_young(watch, healthy, make):
    recording = train(watch, lambda parameters: (make(parameters) for _ in range(2)))
    healthy(recording.run)
    assert ages(recording)[:4] == [1, 2, 3, 4]
    assert ages(recording)[-1] == 4
    assert (np.diff(ages(recording)) < 0).sum() == 1


def test_a_state_that_a_checkpoint_brought_is_as_old_as_it_says(watch):
    def optimizers(parameters):
        before, after = torch.optim.Adam(parameters), torch.optim.Adam(parameters)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        for _ in range(7):
            before.step()
        after.load_state_dict(before.state_dict())
        yield after

    model = nn.Linear(3, 2)
    (optimizer,) = optimizers(list(model.parameters()))
    with watch(model, optimizer) as recording:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
    assert ages(recording) == [8, 9, 10]


def test_an_optimizer_without_a_state_has_no_age(watch):
    recording = train(watch, lambda parameters: [torch.optim.SGD(parameters, lr=0.1)])
    assert np.isnan(ages(recording)).all()


@pytest.mark.parametrize("make", MAKERS)
def test_a_second_optimizer_of_other_parameters_says_nothing(watch, healthy, make):
    first, second = nn.Linear(3, 3), nn.Linear(3, 2)
    one, two = make(first.parameters()), make(second.parameters())
    with watch([first, second], [one, two]) as recording:
        for step in range(6):
            if step == 3:
                two.state.clear()
            for optimizer in (one, two):
                optimizer.zero_grad()
            second(first(torch.randn(4, 3))).square().mean().backward()
            one.step()
            two.step()
    healthy(recording.run)
    assert ages(recording) == [1, 2, 3, 4, 5, 6]
