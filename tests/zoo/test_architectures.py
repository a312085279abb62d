"""Each architecture is an ordinary model that learns, on data that depend on seed and number alone."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.optimizer import OPTIMIZERS

ALL = [architecture.id for architecture in ARCHITECTURES]


def trained(architecture: str, optimizer: str, steps: int) -> list[float]:
    training = ARCHITECTURES[architecture].training(optimizer, 1, steps=400)
    training.prepare()
    training.steps = steps
    training.run()
    return training.losses


@pytest.mark.parametrize("name", [name for name in ALL if name != "gan"])
def test_it_learns(name):
    losses = trained(name, "adamw", 30)
    assert sum(losses[-5:]) / 5 < losses[0]


def test_neither_side_of_the_gan_wins():
    losses = trained("gan", "adamw", 200)
    assert 0.3 < losses[-1] < 3


@pytest.mark.parametrize("optimizer", [optimizer.id for optimizer in OPTIMIZERS])
def test_every_optimizer_learns(optimizer):
    losses = trained("regression", optimizer, 80)
    assert sum(losses[-10:]) / 10 < 0.8 * losses[0]


@pytest.mark.parametrize("name", ALL)
def test_a_batch_is_a_function_of_its_number(name):
    first, again = (ARCHITECTURES[name].training("adamw", 5).parts for _ in range(2))
    for part, same, other in zip(first.batches(7), again.batches(7), first.batches(8), strict=True):
        assert torch.equal(part, same)
        assert not torch.equal(part, other)


@pytest.mark.parametrize("name", ALL)
def test_held_out_batches_are_never_trained_on(name):
    parts = ARCHITECTURES[name].training("adamw", 5).parts
    seen = [parts.batches(i)[0] for i in range(5)]
    assert not any(torch.equal(parts.held_out(i)[0], batch) for i in range(3) for batch in seen)


@pytest.mark.parametrize("name", ALL)
def test_the_blocks_are_modules_with_parameters(name):
    parts = ARCHITECTURES[name].training("adamw", 5).parts
    for block in parts.blocks:
        assert any(True for _ in parts.model.get_submodule(block).parameters())


def test_lion_follows_signs():
    lone = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = OPTIMIZERS["lion"].make([lone], 0.1)
    lone.grad = torch.tensor([5.0, -0.001])
    optimizer.step()
    torch.testing.assert_close(lone.detach(), torch.tensor([0.9, -0.9]))


def test_muon_makes_a_step_of_about_equal_singular_values():
    weight = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = OPTIMIZERS["muon"].make([weight], 1.0)
    weight.grad = torch.diag(torch.tensor([100.0, 30.0, 10.0, 5.0]))
    optimizer.step()
    assert all(0.5 < value < 1.3 for value in torch.linalg.svdvals(weight.detach()))


def test_schedule_free_averages_a_faster_sequence():
    lone = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = OPTIMIZERS["schedule-free"].make([lone], 0.1)
    fast, mean = 1.0, 1.0
    for step in range(1, 4):
        lone.grad = torch.ones(1)
        optimizer.step()
        fast -= 0.1
        mean += (fast - mean) / step
        assert lone.item() == pytest.approx(0.1 * fast + 0.9 * mean, abs=1e-6)


@pytest.mark.parametrize("optimizer", [optimizer.id for optimizer in OPTIMIZERS])
def test_an_optimizer_goes_on_from_its_state_as_if_it_had_not_stopped(optimizer):
    weight = torch.nn.Parameter(torch.ones(3, 3))
    one = OPTIMIZERS[optimizer].make([weight], 0.1)
    gradients = torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(0))
    for gradient in gradients[:4]:
        weight.grad = gradient.clone()
        one.step()
    again = torch.nn.Parameter(weight.detach().clone())
    other = OPTIMIZERS[optimizer].make([again], 0.1)
    other.load_state_dict(deepcopy(one.state_dict()))
    for gradient in gradients[4:]:
        weight.grad, again.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    torch.testing.assert_close(again, weight)
