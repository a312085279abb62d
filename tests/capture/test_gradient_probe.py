from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from stabdiag.capture.dead_rows import DEAD_SAMPLES


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norms_are_those_of_the_gradients_and_weights(watch, at, healthy, dtype):
    net = model().to(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as recording:
        net(torch.randn(4, 3, dtype=dtype)).square().mean().backward()
        taken = gradients(net)
        optimizer.step()
    run = recording.run
    healthy(run)
    for name, gradient in taken.items():
        wide, weight = gradient.double(), net.get_parameter(name).detach().double()
        expected = {
            "grad.norm": wide.norm(), "grad.clipped_norm": wide.norm(), "grad.absmax": wide.abs().max(),
            "grad.nonfinite": torch.tensor(0.0), "weight.norm": weight.norm(),
            "weight.absmax": weight.abs().max(), "weight.nonfinite": torch.tensor(0.0),
        }  # fmt: skip
        for series, value in expected.items():
            assert at(run, series)[name] == pytest.approx(value.item(), rel=1e-4), (series, name)
    total = torch.stack([g.double().norm() for g in taken.values()]).norm().item()
    assert at(run, "run.grad_norm")["run"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_norms_are_of_before_clipping_and_clipped_norms_of_after(watch, at, limit):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as recording:
        net(torch.randn(4, 3)).square().mean().backward()
        before = gradients(net)
        total = clip_grad_norm_(net.parameters(), limit).item()
        after = gradients(net)
        optimizer.step()
    run = recording.run
    for name in before:
        assert at(run, "grad.norm")[name] == pytest.approx(before[name].norm().item(), rel=1e-5)
        assert at(run, "grad.clipped_norm")[name] == pytest.approx(after[name].norm().item(), rel=1e-5)
    assert at(run, "run.grad_norm")["run"] == pytest.approx(total, rel=1e-5)
    assert at(run, "run.clipped_grad_norm")["run"] == pytest.approx(min(total, limit), rel=1e-3)


def test_norms_come_at_every_step_and_the_rest_at_every_kth(watch, train):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with watch(net, optimizer, every=5) as recording:
        train(net, optimizer, torch.randn(4, 3).expand(12, 4, 3))
    run = recording.run
    whole = [step in (0, 1, 2, 3, 4, 5, 10) for step in range(12)]
    assert run.table("grad.norm").steps.tolist() == list(range(12))
    assert np.isfinite(run.table("grad.norm").values).all()
    np.testing.assert_array_equal(np.isfinite(run.table("grad.absmax").values).all(1), whole)
    np.testing.assert_array_equal(np.isfinite(run.table("grad.clipped_norm").values).any(1), whole)
    assert run.table("weight.norm").steps.tolist() == [0, 1, 2, 3, 4, 5, 10]


def carryover(watch, zero) -> np.ndarray:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    with watch(net, optimizer) as recording:
        for _ in range(6):
            net(torch.ones(4, 3)).square().mean().backward()
            optimizer.step()
            zero(optimizer)
    return recording.run.table("run.grad_carryover").first()[1:]


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_that_were_zeroed_carry_nothing_over(watch, to_none):
    assert (carryover(watch, lambda optimizer: optimizer.zero_grad(set_to_none=to_none)) == 0).all()


def test_gradients_that_were_forgotten_carry_over_whole(watch):
    np.testing.assert_allclose(carryover(watch, lambda _: None), 1, rtol=1e-5)


def test_accumulation_over_micro_batches_is_no_carryover(watch):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with watch(net, optimizer) as recording:
        for _ in range(5):
            optimizer.zero_grad()
            for _ in range(4):
                net(torch.ones(4, 3)).square().mean().backward()
            optimizer.step()
    assert (recording.run.table("run.grad_carryover").first()[1:] == 0).all()
    assert (recording.run.table("run.micro_batches").first() == 4).all()


@pytest.mark.parametrize("maker_first", [True, False])
@pytest.mark.parametrize("turns", [1, 5])
def test_two_models_that_take_turns_are_no_false_alarm(watch, maker_first, turns):
    maker, judge = nn.Linear(4, 8), nn.Linear(8, 1)
    of = {name: torch.optim.Adam(net.parameters(), 1e-3) for name, net in (("m", maker), ("j", judge))}
    order = [of["m"], of["j"]] if maker_first else [of["j"], of["m"]]
    with watch([maker, judge], order) as recording:
        for step in range(30):
            judge.zero_grad()
            (judge(torch.randn(8, 8)) - judge(maker(torch.randn(8, 4)).detach())).mean().backward()
            of["j"].step()
            if step % turns == turns - 1:
                maker.zero_grad()
                judge(maker(torch.randn(8, 4))).mean().backward()
                of["m"].step()
    assert "gradients-not-zeroed" not in {finding.signature for finding in recording.findings}


def test_rows_that_no_sample_reaches_are_dead_after_enough_samples(watch):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].bias[:3] = torch.tensor([-1e3, 1e3, -1e3])  # of four units, two can never fire
        net[0].bias[3] = 1e3
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    samples, steps = 256, 12
    with watch(net, optimizer) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.randn(samples, 3)).square().mean().backward()
            optimizer.step()
    dead = recording.run.table("grad.dead").column("0.weight")
    enough = DEAD_SAMPLES // samples
    assert (dead[: enough - 1] == 0).all()
    assert (dead[enough - 1 :] == 0.5).all()
    assert (recording.run.table("grad.dead").column("2.weight") == 0).all()


def test_a_row_that_wakes_up_is_alive(watch):
    net = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    with watch(net, optimizer) as recording:
        for step in range(10):
            optimizer.zero_grad()
            out = net(torch.randn(DEAD_SAMPLES, 2))
            (out[:, 0].sum() + (step >= 5) * out[:, 1].sum()).backward()
            optimizer.step()
    dead = recording.run.table("grad.dead").column("weight")
    np.testing.assert_array_equal(dead, [0.5] * 5 + [0.0] * 5)


def test_a_parameter_without_a_gradient_is_not_measured_and_a_nan_is(watch, at):
    net = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as recording:
        (net[0](torch.ones(1, 2)).sum() * float("nan")).backward()
        optimizer.step()
    norm, nonfinite = at(recording.run, "grad.norm"), at(recording.run, "grad.nonfinite")
    assert np.isnan(norm["1.weight"])
    assert np.isnan(nonfinite["1.weight"])
    assert np.isnan(norm["0.weight"])
    assert nonfinite["0.weight"] == 1
