from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from stabdiag.capture.hooks import Hook


def test_a_hook_returns_nothing_so_that_it_changes_nothing():
    calls = []
    hook = Hook(lambda *args: calls.append(args) or "other")
    assert hook(1, 2) is None
    assert calls == [(1, 2)]


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda hook: pickle.loads(pickle.dumps(hook))])
def test_its_copies_do_nothing(twin):
    calls = []
    model = nn.Linear(2, 2)
    copied = twin(Hook(lambda *args: calls.append(args)))
    model.register_forward_hook(copied)
    model.register_forward_pre_hook(copied)
    model.register_forward_pre_hook(copied, with_kwargs=True)
    model(torch.ones(1, 2))
    assert calls == []


def test_the_compiler_does_not_see_it():
    calls = []
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].register_forward_hook(Hook(lambda *args: calls.append(args)))
    torch.compile(model, backend="eager", fullgraph=True)(torch.ones(1, 2))
    assert calls == []


def test_a_model_saved_in_mid_training_needs_no_stabdiag_and_trains_on(watch, tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    with watch(model, optimizer) as recording:
        loss = model(torch.randn(2, 4)).sum()
        torch.save((model, optimizer), tmp_path / "model.pt")
        twin, twins_optimizer = copy.deepcopy((model, optimizer))
        loss.backward()
        optimizer.step()
        before = recording.run.steps
        twin(torch.ones(1, 4)).sum().backward()
        assert recording.run.sites("output") != ()
        assert all(p.grad is not None for p in twin.parameters())
        assert recording.run.steps == before
        assert twins_optimizer.param_groups[0]["params"][0] is twin[0].weight
    code = (
        "import sys; sys.modules['stabdiag'] = None\n"
        "import torch\n"
        f"model, optimizer = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
        "model(torch.ones(1, 4)).sum().backward()\noptimizer.step()\nprint('trained')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "trained\n", done.stderr


def test_nothing_is_left_on_a_model_that_is_no_longer_watched(watch, train):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer):
        train(model, optimizer, torch.randn(3, 2, 4))
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_a_loss_that_a_model_returns_is_saved_without_a_warning(watch, recwarn):
    class Model(nn.Linear):
        def forward(self, x):
            return super().forward(x).square().mean()

    model = Model(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer):
        loss = model(torch.ones(1, 2))
        loss.backward()
        optimizer.step()
        torch.save(loss, io.BytesIO())
    assert [str(warning.message) for warning in recwarn] == []
