"""A recording of whatever trains, begun where models and optimizers are there already."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import stabdiag


def made(seed=0, optimizer=torch.optim.SGD):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    return model, optimizer(model.parameters(), lr=0.05)


def train(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


def recorded(run):
    assert list(run.events_of("recorder-error")) == []
    return {site.name for site in run.sites("grad")}, len(list(run.events_of("optimizer")))


def test_a_model_and_an_optimizer_from_before_are_recorded_from_the_first_step_on(tmp_path):
    parts = made()
    with stabdiag.watch(log_dir=tmp_path, every=1) as recording:
        train(*parts)
    run = recording.run
    assert recorded(run) == ({"0.weight", "0.bias", "2.weight", "2.bias"}, 1)
    assert run.steps == 3
    assert {site.name for site in run.sites("batch")} == {"input"}
    assert run.table("run.loss").steps.tolist() == [0, 1, 2]
    assert "output.rms" in run


def test_what_is_made_after_the_beginning_is_recorded_too(tmp_path):
    with stabdiag.watch(log_dir=tmp_path, every=1) as recording:
        train(*made())
    assert recorded(recording.run)[1] == 1
    assert recording.run.steps == 3


def test_what_is_left_from_earlier_work_and_does_not_train_is_left_alone(tmp_path):
    stale = made(optimizer=torch.optim.AdamW)
    train(*stale)
    parts = made(1)
    with stabdiag.watch(log_dir=tmp_path, every=1) as recording:
        train(*parts)
    names, optimizers = recorded(recording.run)
    assert optimizers == 1
    assert names == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert recording.run.steps == 3
    assert stale[1].state  # alive until here


def test_a_second_model_from_before_joins_when_it_is_trained(tmp_path):
    first, second = made(), (lone := nn.Linear(4, 1), torch.optim.SGD(lone.parameters(), lr=0.1))
    with stabdiag.watch(log_dir=tmp_path, every=1) as recording:
        for _ in range(3):
            train(*first, steps=1)
            train(*second, steps=1)
    names, optimizers = recorded(recording.run)
    assert optimizers == 2
    assert {"0.weight", "Linear.weight"} <= names


@pytest.mark.parametrize("how", ["wrapper", "in place", "function"])
def test_a_model_that_was_compiled_before_is_recorded_with_its_own_optimizer(tmp_path, how):
    stale = made(optimizer=torch.optim.AdamW)
    model, optimizer = made(1)
    call = model
    if how == "in place":
        model.compile(backend="eager")
    else:
        call = torch.compile(model if how == "wrapper" else lambda x: model(x), backend="eager")
    with stabdiag.watch(log_dir=tmp_path, every=1) as recording:
        train(call, optimizer, steps=4)
    names, optimizers = recorded(recording.run)
    assert optimizers == 1
    assert names == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert recording.run.steps == 4
    assert not stale[1].state


def test_weights_are_the_same_to_the_bit(tmp_path):
    def trained(watching):
        parts = made()
        with stabdiag.watch(log_dir=tmp_path, every=1) if watching else torch.enable_grad():
            train(*parts, steps=8)
        return torch.cat([p.detach().flatten() for p in parts[0].parameters()])

    assert torch.equal(trained(True), trained(False))


def test_an_error_is_kept_with_the_run(tmp_path):
    def interrupted(parts):
        with stabdiag.watch(log_dir=tmp_path, every=1):
            train(*parts)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted(made())
    run = stabdiag.load(tmp_path)
    (raised,) = run.events_of("exception")
    assert raised.data["type"] == "ZeroDivisionError"
    assert run.info.exit_status == 1
    assert not stabdiag.api.Watch.opened
