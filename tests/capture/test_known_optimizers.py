"""What is told of a step, against what the optimizer did to the parameters and the textbook's moments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

LR = 0.01
T = torch.optim
STATISTICS = ("rms", "eps_share", "step", "cosine", "momentum")


class Small(nn.Module):
    """Tensors of one to three dimensions, small enough to be looked at whole."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.linear = nn.Linear(20, 4)

    def forward(self, x):
        return self.linear(torch.tanh(self.conv(x)).flatten(1)) * self.scale


class Trained:
    """A recording, and of its last step the parameters before and after, and all gradients up to it, as the
    optimizer uses them."""

    def __init__(self, watch, make, steps=9, model=Small):
        torch.manual_seed(0)
        model = model().double()
        self.optimizer = make(list(model.parameters()))
        self.group = self.optimizer.param_groups[0]
        self.steps = steps
        self.gradients = {name: [] for name, _ in model.named_parameters()}
        decay = 0.0 if self.decoupled else self.group["weight_decay"]
        sign = -1.0 if self.group.get("maximize") else 1.0
        with watch(model, self.optimizer) as recording:
            for _ in range(steps):
                self.optimizer.zero_grad()
                (0.1 * model(torch.randn(8, 3, 6, dtype=torch.double)).square().mean()).backward()
                self.before = {name: p.detach().clone() for name, p in model.named_parameters()}
                for name, p in model.named_parameters():
                    self.gradients[name].append(sign * p.grad + decay * self.before[name])
                self.optimizer.step()
        self.run = recording.run
        self.after = {name: p.detach() for name, p in model.named_parameters()}

    @property
    def decoupled(self):
        always = isinstance(self.optimizer, T.AdamW | T.Adafactor | T.Muon)
        return always or self.group.get("decoupled_weight_decay", False)

    def update(self, name):
        """In learning rates, without decoupled weight decay."""
        rate = float(self.group["lr"])
        kept = 1 - rate * self.group["weight_decay"] * self.decoupled
        return (kept * self.before[name] - self.after[name]) / rate

    def told(self, name):
        found = {}
        for statistic in (*STATISTICS, "nonfinite"):
            table = self.run.table(f"optimizer.{statistic}")
            found[statistic] = table.values[-1, table.names.index(name)].item()
        return found

    def average(self, name, beta, power=1):
        total = torch.zeros_like(self.before[name])
        for gradient in self.gradients[name]:
            total = beta * total + (1 - beta) * gradient**power
        return total


def rms(values):
    return values.square().mean().sqrt().item()


def behind(gradient, second, floor):
    return (gradient.square() / second.clamp(min=floor)).mean().sqrt().item()


def share(mask):
    return mask.double().mean().item()


def cosine(one, other):
    return nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def first_moment(trained, name, flow, moment):
    return {"cosine": cosine(flow, moment), "momentum": moment.norm().item()}


def adam_like(trained, name):
    group, gradient = trained.group, trained.gradients[name][-1]
    beta1, beta2 = group["betas"]
    second = trained.average(name, beta2, 2) / (1 - beta2**trained.steps)
    root = second.sqrt()
    if group.get("amsgrad"):
        seen = torch.zeros_like(gradient)
        largest = torch.zeros_like(gradient)
        for earlier in trained.gradients[name]:
            seen = beta2 * seen + (1 - beta2) * earlier.square()
            largest = torch.maximum(largest, seen)
        root = (largest / (1 - beta2**trained.steps)).sqrt()
    if isinstance(trained.optimizer, T.RAdam):
        root = trained.average(name, beta2, 2).sqrt()
    return {
        "rms": behind(gradient, second, group["eps"] ** 2),
        "eps_share": share(root < group["eps"]),
        **first_moment(trained, name, gradient, trained.average(name, beta1)),
    }


def adamax(trained, name):
    group, gradient = trained.group, trained.gradients[name][-1]
    largest = torch.zeros_like(gradient)
    for earlier in trained.gradients[name]:
        largest = torch.maximum(group["betas"][1] * largest, earlier.abs() + group["eps"])
    return {
        "eps_share": share(largest < 2 * group["eps"]),
        **first_moment(trained, name, gradient, trained.average(name, group["betas"][0])),
    }


def rmsprop(trained, name):
    group = trained.group
    moment = torch.zeros_like(trained.before[name])
    second, mean = moment.clone(), moment.clone()
    for gradient in trained.gradients[name]:
        second = group["alpha"] * second + (1 - group["alpha"]) * gradient.square()
        mean = group["alpha"] * mean + (1 - group["alpha"]) * gradient
        root = (second - mean.square() * group["centered"]).sqrt()
        divided = gradient / (root + group["eps"])
        moment = group["momentum"] * moment + divided
    known = first_moment(trained, name, divided, moment) if group["momentum"] else {}
    known["rms"] = behind(gradient, second, group["eps"] ** 2)
    return {**known, "eps_share": share(root < group["eps"])}


def adagrad(trained, name):
    group, gradients = trained.group, trained.gradients[name]
    total = sum(gradient.square() for gradient in gradients) + group["initial_accumulator_value"]
    second = total / trained.steps
    return {
        "rms": behind(gradients[-1], second, group["eps"] ** 2 / trained.steps),
        "eps_share": share(total.sqrt() < group["eps"]),
    }


def adadelta(trained, name):
    second = trained.average(name, trained.group["rho"], 2)
    eps = trained.group["eps"]
    return {"rms": behind(trained.gradients[name][-1], second, eps), "eps_share": share(second < eps)}


def adafactor(trained, name):
    group, gradient = trained.group, trained.gradients[name][-1]
    floor = torch.finfo(torch.double).eps if group["eps"][0] is None else group["eps"][0]
    second, rows, columns = torch.zeros_like(gradient), 0.0, 0.0
    for count, earlier in enumerate(trained.gradients[name], 1):
        new = count ** group["beta2_decay"]
        squares = earlier.square()
        second = (1 - new) * second + new * squares
        if gradient.dim() > 1:
            rows = (1 - new) * rows + new * squares.mean(-1, keepdim=True)
            columns = (1 - new) * columns + new * squares.mean(-2, keepdim=True)
    used = second
    if gradient.dim() > 1:
        mean = rows.mean(-2, keepdim=True)
        second, used = rows * columns / mean, rows * columns / mean.clamp(min=floor)
    own = max(group["eps"][1], rms(trained.before[name])) * min(group["lr"], trained.steps**-0.5)
    return {
        "rms": behind(gradient, second, floor**2),
        "eps_share": share(used.sqrt() < floor),
        "step": rms(trained.update(name)) * group["lr"] / own,
    }


def descent(trained, name):
    group, moment = trained.group, None
    for gradient in trained.gradients[name]:
        if isinstance(trained.optimizer, T.Muon):
            start = torch.zeros_like(gradient) if moment is None else moment
            moment = torch.lerp(start, gradient, 1 - group["momentum"])
        else:
            moment = gradient if moment is None else group["momentum"] * moment + gradient
    return {**first_moment(trained, name, gradient, moment), "step": float("nan")}


class Two(nn.Module):
    """Matrices alone."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(18, 5, bias=False), nn.Linear(5, 4, bias=False)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x.flatten(1))))


CASES = [
    (adam_like, T.Adam, {"eps": 1e-3}),
    (adam_like, T.Adam, {"amsgrad": True, "betas": (0.5, 0.6), "eps": 1e-3}),
    (adam_like, T.Adam, {"weight_decay": 0.1, "maximize": True}),
    (adam_like, T.AdamW, {"weight_decay": 0.1, "eps": 3e-3, "foreach": True}),
    (adam_like, T.Adam, {"fused": True, "weight_decay": 0.1}),
    (adam_like, T.NAdam, {"eps": 1e-3}),
    (adam_like, T.NAdam, {"momentum_decay": 0.5, "betas": (0.8, 0.95), "foreach": True}),
    (adam_like, T.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (adam_like, T.NAdam, {"weight_decay": 0.1, "maximize": True}),
    (adam_like, T.RAdam, {"eps": 1e-3}),
    (adam_like, T.RAdam, {"betas": (0.8, 0.9), "weight_decay": 0.1, "foreach": True}),
    (adamax, T.Adamax, {}),
    (adamax, T.Adamax, {"eps": 3e-3, "weight_decay": 0.1, "foreach": True}),
    (rmsprop, T.RMSprop, {}),
    (rmsprop, T.RMSprop, {"eps": 1e-3, "alpha": 0.5, "weight_decay": 0.1, "maximize": True}),
    (rmsprop, T.RMSprop, {"centered": True, "eps": 1e-3}),
    (rmsprop, T.RMSprop, {"momentum": 0.9, "foreach": True}),
    (rmsprop, T.RMSprop, {"centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    (adagrad, T.Adagrad, {"eps": 5e-3}),
    (adagrad, T.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 1e-4, "fused": True}),
    (adagrad, T.Adagrad, {"weight_decay": 0.1, "foreach": True, "maximize": True}),
    (adadelta, T.Adadelta, {}),
    (adadelta, T.Adadelta, {"rho": 0.5, "eps": 1e-4, "weight_decay": 0.1, "foreach": True}),
    (adafactor, T.Adafactor, {}),
    (adafactor, T.Adafactor, {"lr": 10.0, "d": 1.05, "weight_decay": 0.01}),
    (adafactor, T.Adafactor, {"eps": (1e-3, 1e-3), "d": 100.0, "foreach": True, "maximize": True}),
    (descent, T.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
]


def check(trained, textbook):
    for name in trained.before:
        expected = {"step": rms(trained.update(name)), **textbook(trained, name), "nonfinite": 0.0}
        for statistic, value in trained.told(name).items():
            wanted = expected.get(statistic, float("nan"))
            assert value == pytest.approx(wanted, rel=1e-3, abs=1e-6, nan_ok=True), (name, statistic)


@pytest.mark.parametrize(("textbook", "cls", "settings"), CASES)
def test_a_step_is_told_as_it_was(watch, healthy, textbook, cls, settings):
    trained = Trained(watch, lambda p: cls(p, **{"lr": LR, **settings}))
    healthy(trained.run)
    assert not list(trained.run.events_of("coverage"))
    check(trained, textbook)


@pytest.mark.parametrize("steps", [1, 4, 5, 6])
def test_radam_is_told_as_it_was_before_it_divides_and_from_then_on(watch, steps):
    trained = Trained(watch, lambda p: T.RAdam(p, lr=LR, eps=1e-4), steps)
    divided = {} if steps > 5 else {"eps_share": float("nan")}
    check(trained, lambda *args: adam_like(*args) | divided)


@pytest.mark.skipif(not hasattr(T, "Muon"), reason="this torch has no Muon")
def test_of_muon_the_momentum_is_known_alone(watch, healthy):
    trained = Trained(watch, lambda p: T.Muon(p, lr=LR), model=Two)
    healthy(trained.run)
    check(trained, descent)


def test_settings_of_groups_and_tensors_are_each_parameter_s_own(watch):
    def make(parameters):
        groups = [
            {"params": parameters[:2], "betas": (0.8, 0.9), "weight_decay": 0.1},
            {"params": parameters[2:], "lr": torch.tensor(LR)},
        ]
        return T.NAdam(groups, lr=LR)

    trained = Trained(watch, make)
    names = ("scale", "conv.weight"), ("linear.weight", "linear.bias")
    for group, own in zip(trained.optimizer.param_groups, names, strict=True):
        trained.group = group
        for name in own:
            assert trained.told(name)["step"] == pytest.approx(rms(trained.update(name)), rel=1e-3)


class Steady(nn.Module):
    """Its gradient is the same at every step: the root of the row times the column of an element."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(48, 8, 5, 7))
        rows, columns = torch.rand(48, 8, 5, 1) + 0.1, torch.rand(48, 8, 1, 7) + 0.1
        self.register_buffer("gradient", (rows * columns).sqrt())

    def forward(self):
        return (self.weight * self.gradient).sum()


def test_a_sample_of_a_factored_moment_has_the_rows_and_columns_of_its_elements(watch, healthy):
    torch.manual_seed(0)
    model = Steady()
    optimizer = T.Adafactor(model.parameters(), lr=LR)
    with watch(model, optimizer) as recording:
        for _ in range(3):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()
    healthy(recording.run)
    assert recording.run.table("optimizer.rms").values[-1, 0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("cls", [T.RMSprop, T.Adafactor, T.Adam])
def test_a_state_that_is_no_number_is_counted_as_such(watch, cls):
    model = nn.Linear(3, 2)
    optimizer = cls(model.parameters(), lr=LR)
    with watch(model, optimizer) as recording:
        model(torch.full((4, 3), torch.inf)).sum().backward()
        optimizer.step()
    table = recording.run.table("optimizer.nonfinite")
    assert dict(zip(table.names, table.values[-1].tolist(), strict=True)) == {"weight": 1.0, "bias": 0.0}
