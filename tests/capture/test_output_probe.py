from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def test_outputs_and_their_gradients_are_those_of_the_step(watch, at, healthy):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = sgd(model)
    kept = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _a, out, name=name: kept.update({name: out}))
    with watch(model, optimizer) as recording:
        loss = model(torch.randn(5, 3)).square().mean()
        for out in kept.values():
            out.retain_grad()
        loss.backward()
        optimizer.step()
    run = recording.run
    healthy(run)
    assert [site.name for site in run.sites("output")] == ["0", "1", "2", "Sequential"]
    assert [site.order for site in run.sites("output")] == [0, 1, 2, 3]
    assert run.sites("output")[0].module_type == "Linear"
    assert run.sites("output")[0].shape == (5, 4)
    for name, out in kept.items():
        site, x, g = name or "Sequential", out.detach(), out.grad
        expected = {
            "output.min": x.min(), "output.max": x.max(), "output.mean": x.mean(),
            "output.rms": x.square().mean().sqrt(), "output.zeros": (x == 0).float().mean(),
            "output.nonfinite": torch.tensor(0.0), "output_grad.norm": g.norm(),
            "output_grad.absmax": g.abs().max(), "output_grad.rms": g.square().mean().sqrt(),
        }  # fmt: skip
        for series, value in expected.items():
            assert at(run, series)[site] == pytest.approx(value.item(), rel=1e-5, abs=1e-7), (series, site)


def test_a_container_repeats_the_numbers_of_the_child_whose_tensor_it_returns(watch, at, train):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh(), nn.Identity()))
    with watch(model, optimizer := sgd(model)) as recording:
        train(model, optimizer, [torch.randn(4, 2)])
    for series in recording.run.series:
        if series.startswith("output"):
            got = at(recording.run, series)
            assert got["Sequential"] == got["1"] == got["1.1"] == got["1.0"], series


def test_an_operation_in_place_is_another_output(watch, at, train, healthy):
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(inplace=True), nn.Linear(16, 1))
    with watch(model, optimizer := sgd(model)) as recording:
        train(model, optimizer, [torch.randn(8, 2)])
    healthy(recording.run)
    low, zeros = at(recording.run, "output.min"), at(recording.run, "output.zeros")
    assert low["0"] < 0 == low["1"]
    assert zeros["0"] == 0 < zeros["1"]
    norms = at(recording.run, "output_grad.norm")
    assert 0 < norms["0"] < norms["1"]  # the rectifier lets a part of the gradient through


@pytest.mark.parametrize(("reentrant", "early_stop"), [(True, True), (False, True), (False, False)])
def test_a_checkpointed_module_counts_once(watch, at, healthy, reentrant, early_stop):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return checkpoint(self.second, self.first(x), use_reentrant=reentrant)

    model, calls = Checkpointed(), []
    optimizer = sgd(model)
    with watch(model, optimizer) as recording, set_checkpoint_early_stop(early_stop):
        for _ in range(3):
            optimizer.zero_grad()
            output = model(torch.randn(4, 3))
            calls.append(output.detach())
            output.square().sum().backward()
            optimizer.step()
    healthy(recording.run)
    for step, x in enumerate(calls):
        assert at(recording.run, "output.mean", step)["second"] == pytest.approx(x.mean().item(), rel=1e-5)
        # d(sum of squares) = 2x; were the recomputation counted too, the norm would be larger.
        norm = at(recording.run, "output_grad.norm", step)["second"]
        assert norm == pytest.approx(2 * x.norm().item(), rel=1e-5)


def test_a_recomputation_that_runs_to_its_end_is_not_a_second_call(watch, at):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = sgd(model)
    with watch(model, optimizer) as recording, set_checkpoint_early_stop(False):
        x = torch.tensor([[float("inf"), 1.0]])
        checkpoint(model[1], model[0](x), use_reentrant=False).sum().backward()
        optimizer.step()
    assert at(recording.run, "output.nonfinite") == {"0": 1, "1": 1}


def test_evaluation_does_not_count(watch, at):
    model = nn.Linear(2, 2)
    optimizer = sgd(model)
    with watch(model, optimizer) as recording:
        loss = model(torch.ones(1, 2)).sum()
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                model(torch.full((1, 2), 1e6))
        loss.backward()
        optimizer.step()
    assert at(recording.run, "output.absmax")["Linear"] < 10
    assert at(recording.run, "batch.max") == {"input": 1}


def test_a_module_that_runs_twice_is_both_and_one_that_never_runs_has_no_outputs(watch, at, train, healthy):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.never = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.twice(self.twice(x) * 100)

    model = Model()
    outputs = []
    model.twice.register_forward_hook(lambda _m, _a, out: outputs.append(out.detach()))
    with watch(model, optimizer := sgd(model)) as recording:
        train(model, optimizer, torch.randn(2, 4, 2))
    healthy(recording.run)
    assert [site.name for site in recording.run.sites("output")] == ["twice", "Model"]
    both = torch.cat(outputs[:2])
    assert at(recording.run, "output.max")["twice"] == pytest.approx(both.max().item())
    assert at(recording.run, "output.rms")["twice"] == pytest.approx(both.square().mean().sqrt().item())
    never = next(s for s in recording.run.sites("weight") if s.name == "never.weight")
    assert never.order == -1


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    state: object = None


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (lambda x: {"logits": x, "hidden": (x * 2, None)}, ["M[logits]", "M[hidden]"]),
        (lambda x: Result(x), ["M[logits]"]),
        (lambda x: (x, [x * 2, x * 3]), ["M", "M[1]", "M[1][1]"]),
        (lambda x: (None, x, torch.ones(2, dtype=torch.long)), ["M[1]"]),
    ],
)
def test_outputs_of_any_form_are_measured(watch, healthy, shape, names):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            self.out = self.inner(x)
            return shape(self.out * 1)

    model = M()
    optimizer = sgd(model)
    with watch(model, optimizer) as recording:
        model(torch.randn(3, 2))
        model.out.sum().backward()
        optimizer.step()
    healthy(recording.run)
    assert [site.name for site in recording.run.sites("output")][1:] == names
    assert np.isfinite(recording.run.table("output.rms").values).all()


def test_a_parameter_that_a_module_returns_keeps_no_hook(watch, train, healthy):
    class Prompt(nn.Module):
        def __init__(self):
            super().__init__()
            self.prompt = nn.Parameter(torch.ones(2))

        def forward(self):
            return self.prompt

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.layer = Prompt(), nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x * self.source())

    model = Model()
    with watch(model, optimizer := sgd(model)) as recording:
        for batch in torch.randn(4, 3, 2):
            train(model, optimizer, [batch])
            assert not model.source.prompt._backward_hooks
    healthy(recording.run)
    assert "source" in recording.run.table("output.rms").names


def test_function_transforms_pass_unseen(watch, healthy):
    model = nn.Linear(2, 1)
    optimizer = sgd(model)
    with watch(model, optimizer) as recording:
        parameters = dict(model.named_parameters())
        slope = torch.func.grad(lambda p, x: torch.func.functional_call(model, p, (x,)).sum())
        torch.func.vmap(slope, in_dims=(None, 0))(parameters, torch.randn(3, 2))
        model(torch.randn(3, 2)).sum().backward()
        optimizer.step()
    healthy(recording.run)
    assert recording.run.steps == 1


def test_only_every_kth_step_is_recorded_after_the_first_ones(watch, train):
    model = nn.Linear(2, 2)
    with watch(model, optimizer := sgd(model), every=4) as recording:
        train(model, optimizer, torch.randn(14, 3, 2))
    assert recording.run.table("output.rms").steps.tolist() == [0, 1, 2, 3, 4, 8, 12]
    assert recording.run.table("run.loss").steps.tolist() == list(range(14))


def test_the_call_with_a_non_finite_value_is_named(watch, at, train):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    batch = torch.tensor([[float("nan"), 1.0]])
    with watch(model, optimizer := sgd(model)) as recording:
        train(model, optimizer, [torch.ones(1, 2), batch])
    assert at(recording.run, "output.nonfinite", 0) == {"0": 0, "1": 0, "Sequential": 0}
    assert at(recording.run, "output.nonfinite", 1) == {"0": 1, "1": 1, "Sequential": 1}
    told = {event.data["what"]: event.step for event in recording.run.events_of("nonfinite")}
    assert told.keys() >= {"loss", "batch", "output", "grad"}
    assert set(told.values()) == {1}


def test_gradients_of_outputs_are_given_back_their_scale(session, found, at, healthy):
    model = nn.Linear(2, 1)
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    healthy(found())
    assert at(found(), "output_grad.norm", 1)["Linear"] == pytest.approx(1.0)
    assert at(found(), "run.loss_scale", 1)["run"] == 1024
