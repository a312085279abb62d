from __future__ import annotations

import pytest
import torch

from stabdiag.stats.real import real
from stabdiag.stats.stability_limit import stability_limit

LR = 0.1
OPTIMIZERS = {
    "gradient descent": (torch.optim.SGD, {}, 2.0),
    "heavy ball": (torch.optim.SGD, {"momentum": 0.9}, 3.8),
    "heavy ball with dampening": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}, 7.6),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 3.8 / 2.8),
    "adam": (torch.optim.Adam, {}, 38.0),
    "adamw": (torch.optim.AdamW, {"betas": (0.5, 0.999), "weight_decay": 0.0}, 6.0),
    "rmsprop": (torch.optim.RMSprop, {}, 2.0),
    "rmsprop with momentum": (torch.optim.RMSprop, {"momentum": 0.5}, 3.0),
    "adagrad": (torch.optim.Adagrad, {}, 2.0),
}


def diverges(make, options, curvature):
    """Steps on ½ λ w² with the second moment held at 1, in float64."""
    w = torch.nn.Parameter(torch.tensor([1e-6], dtype=torch.float64))
    held = {"eps": 0.0}
    if make in (torch.optim.Adam, torch.optim.AdamW):
        beta = options.get("betas", (0.9, 0.999))[0]
        held["betas"] = (beta, 1 - 1e-12)
    elif make is torch.optim.RMSprop:
        held["alpha"] = 1 - 1e-12
    elif make is torch.optim.SGD:
        held = {}
    optimizer = make([w], lr=LR, **{**options, **held})
    w.grad = torch.ones_like(w)
    if held:
        optimizer.step()
        state = optimizer.state[w]
        for moment in ("exp_avg", "momentum_buffer"):
            state.get(moment, w.detach()).zero_()
        state["step"] = torch.tensor(1e15, dtype=torch.float64)  # bias corrections are over
        if make is torch.optim.Adagrad:
            state["step"] = torch.tensor(1.0)
        state[{"betas": "exp_avg_sq", "alpha": "square_avg"}.get(list(held)[-1], "sum")].fill_(1.0)
        with torch.no_grad():
            w.fill_(1e-6)
    for _ in range(2000):
        w.grad = curvature * w.detach()
        optimizer.step()
        if w.abs() > 1e-3:
            return True
    return False


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_bound_is_where_a_quadratic_begins_to_diverge(name):
    make, options, bound = OPTIMIZERS[name]
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = make([w], lr=LR, **options)
    w.grad = torch.ones(3)
    limit = stability_limit(optimizer, [w])
    assert limit.bound == pytest.approx(bound)
    assert limit.lr == LR
    assert not diverges(make, options, 0.98 * bound / LR)
    assert diverges(make, options, 1.02 * bound / LR)


STATES = {
    "adam": (torch.optim.Adam, {"weight_decay": 0.1, "eps": 1e-3}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"weight_decay": 0.1}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0.5, "initial_accumulator_value": 0.1}),
}


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", STATES)
def test_the_scale_is_that_of_the_coming_step(name, kind):
    make, options = STATES[name]
    w = torch.nn.Parameter(torch.randn(5, dtype=kind))
    optimizer = make([w], lr=LR, **options)
    for step in range(4):
        w.grad = torch.randn(5, dtype=kind) * (3 if step == 1 else 0.3)
        (scale,) = stability_limit(optimizer, [w]).scale
        before, gradient = w.detach().clone(), w.grad.clone()
        decay = options.get("weight_decay", 0.0)
        optimizer.step()
        moved = (before - w.detach()) / LR
        if make is torch.optim.AdamW:
            moved = moved - decay * before
        else:
            gradient = gradient + decay * before
        if make in (torch.optim.Adam, torch.optim.AdamW):  # it divides the first moment, not the gradient
            gradient = optimizer.state[w]["exp_avg"] / (1 - 0.9 ** (step + 1))
        torch.testing.assert_close(
            real(moved), scale * real(gradient), rtol=1e-4, atol=1e-6
        )  # it counts in float32


def test_groups_with_different_rates_are_scaled_by_them():
    first, second, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = torch.optim.SGD(
        [{"params": [first], "lr": 0.1}, {"params": [second, idle], "lr": 0.02}], lr=1
    )
    first.grad = second.grad = torch.ones(2)
    limit = stability_limit(optimizer, [first, second, idle])
    assert (limit.lr, limit.bound) == (0.1, 2.0)
    assert limit.scale == [1.0, pytest.approx(0.2), 0.0]
    assert not limit.uniform
    assert stability_limit(optimizer, [first]).uniform
    assert not stability_limit(torch.optim.Adam([first]), [first]).uniform


def test_a_learning_rate_of_zero_has_a_bound_as_well():
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    limit = stability_limit(torch.optim.SGD([w], lr=0.0), [w])
    assert (limit.bound, limit.lr, limit.scale) == (2.0, 0.0, [1.0])


class OfAThirdParty(torch.optim.Adam):
    pass


def test_what_is_not_known_is_not_guessed():
    w, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    w.grad = other.grad = torch.ones(2)
    for optimizer in (
        OfAThirdParty([w]),
        torch.optim.NAdam([w]),
        torch.optim.LBFGS([w]),
        torch.optim.Adam([w], maximize=True),
        torch.optim.RMSprop([w], centered=True),
    ):
        assert stability_limit(optimizer, [w]) is None
    different = torch.optim.SGD([{"params": [w], "momentum": 0.9}, {"params": [other]}], lr=0.1)
    assert stability_limit(different, [w, other]) is None
    assert stability_limit(different, [w]).bound == pytest.approx(3.8)
    assert stability_limit(torch.optim.SGD([w], lr=0.1), [w, other]) is None


def test_the_factor_of_a_gradient_scaler_is_taken_out():
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.Adam([w], eps=0.0)
    w.grad = torch.full((3,), 4.0, dtype=torch.float64)
    optimizer.grad_scale = torch.tensor(8.0, dtype=torch.float64)
    (scale,) = stability_limit(optimizer, [w]).scale
    torch.testing.assert_close(scale, torch.full((3,), 2.0, dtype=torch.float64))
