from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import stabdiag
from stabdiag.capture import schedule
from stabdiag.capture.captured_loss import CapturedLoss
from stabdiag.capture.flat_loss import FlatLoss
from stabdiag.capture.probes.curvature import CurvatureProbe
from stabdiag.capture.session import Session
from stabdiag.core.cadence import Cadence
from stabdiag.stats.hessian import GraphProducts

RARE = 5


@pytest.fixture(autouse=True)
def _curvature_every_fifth_step(monkeypatch):
    monkeypatch.setattr(schedule, "RARE_EVERY", RARE)


@pytest.fixture
def gradients(monkeypatch):
    """How many gradients each look at the curvature took."""
    counts = []
    take, compute = FlatLoss.products, FlatLoss._gradient

    def products(self):
        counts.append(0)
        return take(self)

    def gradient(self, loss, leaves):
        counts[-1] += 1
        return compute(self, loss, leaves)

    monkeypatch.setattr(FlatLoss, "products", products)
    monkeypatch.setattr(FlatLoss, "_gradient", gradient)
    return counts


def network(activation=nn.Tanh, outputs=4):
    return nn.Sequential(
        nn.Linear(6, 12), activation(), nn.Linear(12, 12), activation(), nn.Linear(12, outputs)
    )


def problem():
    generator = torch.Generator().manual_seed(2)
    x, noise = torch.randn(256, 6, generator=generator), torch.randn(256, 4, generator=generator)
    return x, (x[:, :4] * 2 + 0.5 * noise).argmax(1)


def exact_hessian(model, x, y):
    """[n, n] of the mean cross-entropy, in float64."""
    model = copy.deepcopy(model).double()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        named = {n: t.view(s) for n, t, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, named, (x.double(),)), y)

    return torch.func.hessian(loss)(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


def adam_scale(optimizer, model):
    """Diagonal of S [n] for the step to come, by the formula."""
    parts = []
    for p in model.parameters():
        state, group = optimizer.state[p], optimizer.param_groups[0]
        beta = group["betas"][1]
        second = beta * state["exp_avg_sq"] + (1 - beta) * p.grad.square()
        corrected = second / (1 - beta ** (float(state["step"]) + 1))
        parts.append(1 / (corrected.double().sqrt() + group["eps"]).reshape(-1))
    return torch.cat(parts)


ENDS = ("lambda_max", "lambda_min", "lambda_max_preconditioned")
OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), 2 / 0.1),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), 3.8 / 0.05),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=1e-3), 38 / 1e-3),
}


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_half_of_the_looks_are_within_two_percent_of_the_exact_extreme_and_nine_tenths_within_ten(
    watch, gradients, healthy, name, activation
):
    make, limit = OPTIMIZERS[name]
    model = network(activation)
    optimizer = make(model.parameters())
    x, y = problem()
    exact = {}
    with watch(model, optimizer) as recording:
        for step in range(20 * RARE + 1):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if step and step % RARE == 0:
                hessian = exact_hessian(model, x, y)
                root = adam_scale(optimizer, model).sqrt() if name == "adamw" else torch.ones(len(hessian))
                exact[step] = (
                    torch.linalg.eigvalsh(hessian),
                    torch.linalg.eigvalsh(root[:, None] * hessian * root)[-1].item(),
                    hessian.trace().item(),
                )
            optimizer.step()
    run = recording.run
    healthy(run)
    assert not list(run.events_of("coverage"))
    found = {
        n: run.table(f"curvature.{n}") for n in ("lambda_max", "lambda_min", "lambda_max_preconditioned")
    }
    assert found["lambda_max"].steps.tolist() == list(exact)
    ends = np.array([(values[-1], values[0], scaled) for values, scaled, _ in exact.values()])
    largest, smallest, preconditioned = (table.values[:, 0] for table in found.values())
    errors = np.concatenate([largest / ends[:, 0] - 1, preconditioned / ends[:, 2] - 1])
    errors = errors[~np.isnan(errors)]
    assert errors.max() < 0.005  # of a space that does not hold all of it the extreme lies inside
    assert np.median(-errors) <= 0.02
    assert np.quantile(-errors, 0.9) <= 0.1
    assert np.nanmin(smallest - 1.05 * ends[:, 1]) >= 0
    ratio = run.table("curvature.sharpness_ratio").values[:, 0]
    np.testing.assert_allclose(ratio, preconditioned / limit, rtol=1e-5)
    traces = run.table("curvature.trace").values[3::4, 0]
    assert traces.mean() == pytest.approx(np.mean([e[2] for e in list(exact.values())[3::4]]), rel=0.3)
    np.testing.assert_allclose(run.table("curvature.limit").values, limit, rtol=1e-6)
    if activation is nn.Tanh:
        assert max(gradients) == 11
        assert np.median(gradients[4:]) <= 4


class Everything(nn.Module):
    """Randomness, running statistics and a count of calls."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 4)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.last(self.drop(F.gelu(self.norm(self.first(x)))))


def trained(watch, optimizer, autocast=None, scaler=False, micro=1, **options):
    torch.manual_seed(0)
    model = Everything()
    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    }[optimizer](model.parameters())
    scale = torch.amp.GradScaler("cpu", enabled=scaler)
    fired = []
    model.first.weight.register_hook(lambda gradient: fired.append(gradient.sum().item()))
    model.last.weight.register_post_accumulate_grad_hook(lambda p: fired.append(p.grad.sum().item()))
    recording = watch(model, optimizer, **options) if watch else None
    losses = []
    for _ in range(4 * RARE + 2):
        optimizer.zero_grad()
        for _ in range(micro):
            x = torch.randn(32, 6)
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                loss = F.cross_entropy(model(x), x[:, :4].argmax(1)) / micro
            scale.scale(loss).backward()
            losses.append(loss.item())
        scale.step(optimizer)
        scale.update()
    if recording is not None:
        recording.close()
    state = [*model.state_dict().values(), *(p.grad for p in model.parameters()), torch.rand(3)]
    held = [value for values in optimizer.state.values() for value in values.values()]
    return recording, [*state, *held], (losses, fired, model.calls, model.training)


TRAININGS = {
    "plain": {},
    "autocast": {"autocast": torch.bfloat16},
    "scaler": {"scaler": True},
    "accumulated": {"micro": 3},
    "mixed": {"autocast": torch.float16, "scaler": True},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"autocast": torch.bfloat16},
        {"scaler": True},
        {"micro": 3},
        {"autocast": torch.float16, "scaler": True},
    ],
    ids=["plain", "autocast", "scaler", "accumulated", "mixed"],
)
def test_training_is_the_same_to_the_bit_and_hooks_of_the_script_fire_as_often(
    watch, healthy, optimizer, how
):
    _, bare, heard = trained(None, optimizer, **how)
    recording, watched, heard_watched = trained(watch, optimizer, **how)
    assert heard_watched == heard
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))
    healthy(recording.run)
    assert recording.run.table("curvature.residual").steps.tolist() == [5, 10, 15, 20]
    assert not list(recording.run.events_of("coverage"))


def test_other_series_are_as_they_are_without_it(watch, monkeypatch):
    with_it, *_ = trained(watch, "adam", name="with")
    monkeypatch.setattr(CurvatureProbe, "arm", lambda self, tier: None)
    without, *_ = trained(watch, "adam", name="without")
    ours = ("time", "overhead", "memory", "resident")
    for series in without.run.series:
        if not series.startswith("run.") or not any(word in series for word in ours):
            a, b = with_it.run.table(series), without.run.table(series)
            np.testing.assert_array_equal(a.values, b.values, err_msg=series)


def curvature_of(watch, step, make=lambda p: torch.optim.SGD(p, lr=0.1), model=None, **options):
    """What two looks at a model that does not move find, when `step(model)` makes the gradients."""
    torch.manual_seed(1)
    model = model or network()
    optimizer = make(model.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with watch(model, optimizer, **options) as recording:
        for _ in range(2 * RARE + 1):
            optimizer.zero_grad()
            step(model)
            optimizer.step()
    return recording.run


def largest(run):
    return run.table("curvature.lambda_max").values[1, 0]


X, Y = problem()


def halves(model):
    for part in (slice(0, 128), slice(0, 128)):
        (F.cross_entropy(model(X[part]), Y[part]) / 2).backward()


def scaled(model):
    scale = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scale.scale(F.cross_entropy(model(X[:128]), Y[:128])).backward()
    return scale


class WithLoss(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x, targets=None):
        output = self.body(x)
        return output, F.cross_entropy(output, targets)


def test_micro_batches_and_losses_that_the_model_returns_make_no_difference(watch):
    plain = largest(curvature_of(watch, lambda m: F.cross_entropy(m(X[:128]), Y[:128]).backward(), name="a"))
    assert plain > 0
    assert largest(curvature_of(watch, halves, name="b")) == pytest.approx(plain, rel=0.02)
    torch.manual_seed(1)
    returned = curvature_of(
        watch, lambda m: m(X[:128], targets=Y[:128])[1].backward(), model=WithLoss(network()), name="c"
    )
    assert largest(returned) == pytest.approx(plain, rel=0.02)


def test_the_factor_of_a_gradient_scaler_is_taken_out(watch):
    plain = largest(curvature_of(watch, lambda m: F.cross_entropy(m(X[:128]), Y[:128]).backward(), name="a"))
    keep = []
    run = curvature_of(watch, lambda m: keep.append(scaled(m)), name="b")
    assert largest(run) == pytest.approx(plain, rel=0.02)


def test_a_closure_takes_the_place_of_a_loss_that_cannot_be_computed_again(watch, healthy):
    model = network()

    def contrastive(m):
        (m(X[:128]) - m(X[128:])).square().mean().backward()

    run = curvature_of(watch, contrastive, model=model, name="a")
    assert "curvature.limit" not in run
    (event,) = run.events_of("coverage")
    assert event.data["what"] == "curvature"
    assert "cannot be computed again" in event.data["because"]
    run = curvature_of(
        watch, contrastive, model=model, name="b", curvature=lambda: F.cross_entropy(model(X), Y)
    )
    healthy(run)
    values = torch.linalg.eigvalsh(exact_hessian(model, X, Y))
    assert largest(run) == pytest.approx(values[-1].item(), rel=0.02)


def test_a_closure_that_is_not_the_same_twice_is_told_of(watch):
    model, batches = network(), iter(range(1000))
    run = curvature_of(
        watch,
        lambda m: m(X).square().mean().backward(),
        model=model,
        curvature=lambda: F.cross_entropy(model(X), Y) + next(batches),
    )
    assert "curvature.limit" not in run
    assert "computed again" in next(iter(run.events_of("coverage"))).data["because"]


class Fickle(nn.Linear):
    """Another loss at each call, of which nothing in the module tells."""

    count = 0

    def forward(self, x):
        Fickle.count += 1
        return super().forward(x) * Fickle.count


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x, shift):
        return self.body(x + shift)


def in_place(model):
    shift = torch.zeros(6)
    loss = F.cross_entropy(model(X, shift), Y)
    shift.add_(1)
    loss.backward()


REFUSED = {
    "inputs that change": (in_place, Shifted, "changed in place"),
    "a hidden state": (
        lambda m: m(X).square().mean().backward(),
        lambda: Fickle(6, 4),
        "computed again, a loss",
    ),
    "two roots": (
        lambda m: torch.autograd.backward([m(X).mean(), m(X).square().mean()]),
        None,
        "does not begin at one number",
    ),
    "a graph of its own": (
        lambda m: m(X @ EMBEDDING).square().mean().backward(),
        None,
        "computed from other parameters",
    ),
}
EMBEDDING = torch.eye(6, requires_grad=True)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_computed_again_is_left_out_and_told_of_once(watch, healthy, case):
    step, make, because = REFUSED[case]
    run = curvature_of(watch, step, model=make() if make else None)
    healthy(run)
    assert "curvature.limit" not in run
    told = [event.data["because"] for event in run.events_of("coverage")]
    assert len({text.split("loss")[0] for text in told}) == 1
    assert because in told[0]


def test_an_optimizer_that_is_not_known_has_curvature_and_no_limit(watch):
    class Own(torch.optim.SGD):
        pass

    run = curvature_of(watch, lambda m: F.cross_entropy(m(X), Y).backward(), make=lambda p: Own(p, lr=0.1))
    assert largest(run) > 0
    assert np.isnan(run.table("curvature.limit").values).all()
    assert [e.data["what"] for e in run.events_of("coverage")] == ["the stability limit of Own"]


class Attending(nn.Module):
    """A ReLU beside fused attention, whose kernel has no second derivative."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.layer(x.view(-1, 4, 6)).view(-1, 6))


def test_jumps_of_the_gradient_are_not_taken_for_curvature_beside_fused_attention(watch, healthy):
    model = Attending()
    run = curvature_of(watch, lambda m: F.cross_entropy(m(X), Y).backward(), model=model)
    healthy(run)
    with sdpa_kernel(SDPBackend.MATH):
        values = torch.linalg.eigvalsh(exact_hessian(model, X, Y))
    assert largest(run) == pytest.approx(values[-1].item(), rel=0.02)


def test_where_the_gradient_jumps_and_has_no_derivative_nothing_is_measured(watch, healthy, monkeypatch):
    def refuse(self, vector):
        raise RuntimeError("derivative is not implemented")

    monkeypatch.setattr(GraphProducts, "__call__", refuse)
    run = curvature_of(watch, lambda m: F.cross_entropy(m(X), Y).backward(), model=network(nn.ReLU))
    healthy(run)
    assert "curvature.limit" not in run
    assert "not implemented" in next(iter(run.events_of("coverage"))).data["because"]


def test_half_precision_is_left_out_of_the_products(watch, healthy):
    model = network().to(torch.bfloat16)
    run = curvature_of(
        watch, lambda m: F.cross_entropy(m(X.bfloat16()).float(), Y).backward(), model=model, name="half"
    )
    healthy(run)
    exact = torch.linalg.eigvalsh(exact_hessian(model, X.bfloat16(), Y))[-1].item()
    assert largest(run) == pytest.approx(exact, rel=0.05)


def test_a_loss_is_captured_from_the_last_call():
    captured = CapturedLoss()
    assert "no call" in captured.because


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["by-hand", "checkpoint", "closure", "compiled", "gan", "in-backward", "penalty"]
)
def test_unusual_trainings_are_the_same_to_the_bit_too(tmp_path, healthy, kind):
    def results(recorded):
        torch.manual_seed(0)
        session = Session(tmp_path, Cadence(every=1)) if recorded else None
        values = [value.detach().clone() for value in load_scripts().KINDS[kind]()]
        if session is not None:
            session.end()
        return [*values, torch.rand(3)]

    bare, watched = results(False), results(True)
    for one, other in zip(bare, watched, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    run = stabdiag.load(tmp_path)
    healthy(run)
    told = [event for event in run.events_of("coverage") if event.data["what"] == "curvature"]
    assert ("curvature.limit" in run) != bool(told)


def load_scripts():
    spec = importlib.util.spec_from_file_location("scripts", Path(__file__).with_name("scripts.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
