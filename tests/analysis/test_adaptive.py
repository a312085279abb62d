"""What is held of optimizers, against what torch's do with gradients that are noise, and that are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stabdiag.analysis.adaptive import FAMILIES, Adaptive, adaptive, epsilon, kept
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.event import Event
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

SIZE, STEPS = 4000, 120
LR = 1e-3


def updates(cls, settings, gradient):
    """Root mean square of the last update, in learning rates; Adafactor's in its own, which are of weights
    near 1."""
    parameter = torch.nn.Parameter(torch.ones(SIZE, dtype=torch.double))
    optimizer = cls([parameter], lr=LR, **settings)
    for step in range(STEPS):
        before = parameter.detach().clone()
        parameter.grad = gradient(step)
        optimizer.step()
    moved = (parameter.detach() - before).square().mean().sqrt().item()
    return moved / LR / (before.square().mean().sqrt().item() if cls is torch.optim.Adafactor else 1.0)


def held(cls, settings):
    group = cls([torch.nn.Parameter(torch.ones(1))], lr=LR, **settings).param_groups[0]
    return Adaptive(cls.__name__, FAMILIES[cls.__name__], group)


CASES = [
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"betas": (0.5, 0.99)}),
    (torch.optim.NAdam, {}),
    (torch.optim.NAdam, {"betas": (0.8, 0.99), "momentum_decay": 0.1}),
    (torch.optim.RAdam, {}),
    (torch.optim.RAdam, {"betas": (0.9, 0.95)}),
    (torch.optim.RMSprop, {"alpha": 0.95}),
    (torch.optim.RMSprop, {"alpha": 0.95, "momentum": 0.9}),
    (torch.optim.Adagrad, {}),
    (torch.optim.Adagrad, {"lr_decay": 0.01}),
    (torch.optim.Adafactor, {}),
]


@pytest.mark.parametrize(("cls", "settings"), CASES)
def test_how_long_updates_of_noise_are_is_known(cls, settings):
    generator = torch.Generator().manual_seed(0)
    measured = updates(cls, settings, lambda _: torch.randn(SIZE, generator=generator, dtype=torch.double))
    told = held(cls, settings).noise(np.array([float(STEPS)]))[0]
    # A second moment of few gradients is itself of chance, which makes the quotient a little longer.
    assert measured == pytest.approx(told, rel=0.1)


@pytest.mark.parametrize(("cls", "settings"), [case for case in CASES if case[0] is not torch.optim.RAdam])
def test_how_long_a_whole_step_is_is_known_where_there_is_a_first_moment(cls, settings):
    whole = FAMILIES[cls.__name__].whole(held(cls, settings).group)
    measured = updates(cls, settings, lambda _: torch.ones(SIZE, dtype=torch.double))
    if whole is None:
        assert held(cls, settings).noise(np.array([float(STEPS)]))[0] == pytest.approx(measured, rel=0.01)
    else:
        assert whole == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [*CASES, (torch.optim.Adadelta, {"rho": 0.8})],
)
def test_how_far_a_second_moment_can_lag_is_known(cls, settings):
    parameter = torch.nn.Parameter(torch.ones(SIZE, dtype=torch.double))
    optimizer = cls([parameter], lr=LR, **settings)
    for step in range(STEPS):
        parameter.grad = torch.full((SIZE,), 1e6 if step == STEPS - 1 else 1.0, dtype=torch.double)
        optimizer.step()
    state, group = optimizer.state[parameter], optimizer.param_groups[0]
    second = next(state[key] for key in ("exp_avg_sq", "square_avg", "variance", "sum") if key in state)
    if "exp_avg_sq" in state:
        second = second / (1 - group["betas"][1] ** STEPS)
    elif "sum" in state:
        second = second / STEPS
    told = held(cls, settings).farthest(np.array([float(STEPS)]))[0]
    assert told == pytest.approx(1e6 / second[0].sqrt().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "averages"),
    [
        ("Adam", {}, 1.0),
        ("Adam", {"betas": [0.5, 0.999]}, None),
        ("NAdam", {}, None),
        ("RMSprop", {"momentum": 0.0}, None),
        ("RMSprop", {"momentum": 0.9}, 10.0),
        ("Adafactor", {}, None),
    ],
)
def test_updates_tell_of_the_gradients_direction_where_they_average_enough(name, settings, averages):
    found = Adaptive(name, FAMILIES[name], settings).averages(np.array([100.0]))
    assert found == (averages and pytest.approx(averages))


def run(name, **settings):
    family = settings.pop("family", None)
    data = {"name": name, "groups": [settings], **({"family": family} if family else {})}
    sites = [Site("optimizer", "w", "Linear", (4, 4), dtype="bfloat16")]
    series = {"optimizer.rms": np.ones((9, 1))}
    return run_of(series, sites={"optimizer": sites}, events=[Event("optimizer", 0.0, data=data)])


def test_an_optimizer_is_known_by_the_class_whose_step_it_takes():
    assert adaptive(run("Mine", family="RMSprop", alpha=0.9)).memory == "alpha"
    assert adaptive(run("Mine", betas=[0.9, 0.98])).memory == "betas"
    for told in (
        run("SGD", family="SGD"),
        run("Adamax", family="Adamax", betas=[0.9, 0.999]),
        run("Lookahead"),
    ):
        with pytest.raises(NotEvaluable, match="no second moment is known of"):
            adaptive(told)
        assert kept(told, 5) is None


def test_what_is_kept_goes_by_the_age_of_the_state_where_nothing_sets_it():
    assert kept(run("RMSprop", alpha=0.9), 5) == pytest.approx(0.9)
    assert kept(run("Adagrad"), 99) == pytest.approx(0.99)
    assert kept(run("Adafactor", beta2_decay=-0.5), 99) == pytest.approx(0.9)


def test_epsilon_is_the_floor_of_adafactor_and_by_default_that_of_the_weights_type():
    assert epsilon(run("Adafactor", eps=[1e-20, 1e-3])) == 1e-20
    assert epsilon(run("Adafactor", eps=[None, 1e-3])) == pytest.approx(
        torch.finfo(torch.bfloat16).eps, rel=0.01
    )
    assert epsilon(run("SGD", family="SGD")) is None
