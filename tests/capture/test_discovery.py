from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.capture.discovery import Discovery


@pytest.fixture
def discovery():
    calls = []
    found = Discovery(lambda module, _: calls.append(module))
    found.seen = calls
    yield found
    found.remove()


def test_modules_are_known_from_when_they_are_built_and_not_kept_alive(discovery):
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    assert {id(model), id(model[0])} <= {id(module) for module in discovery.modules}
    kept = len(discovery.modules)
    del model
    gc.collect()
    assert len(discovery.modules) < kept


def test_calls_without_gradients_and_those_after_it_has_settled_trigger_nothing(discovery):
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model(torch.ones(1, 1))
    assert discovery.seen == []
    model(torch.ones(1, 1))
    discovery.settle()
    model(torch.ones(1, 1))
    assert discovery.seen == [model]


def test_compiled_modules_are_noted_with_their_wrappers(discovery):
    model, in_place = nn.Linear(1, 1), nn.Linear(1, 1)
    wrapper = torch.compile(model, backend="eager")
    in_place.compile(backend="eager")
    assert set(discovery.compiled) == {(model, wrapper), (in_place, None)}


def test_torch_is_as_before_when_it_is_removed():
    from torch.nn.modules import module as tables

    names = (
        "_global_forward_pre_hooks",
        "_global_module_registration_hooks",
        "_global_parameter_registration_hooks",
    )
    before = [dict(getattr(tables, name)) for name in names]
    compile, setstate = torch.compile, nn.Module.__setstate__
    found = Discovery(lambda *_: None)
    assert [dict(getattr(tables, name)) for name in names] != before
    found.remove()
    assert [dict(getattr(tables, name)) for name in names] == before
    assert torch.compile is compile
    assert nn.Module.__setstate__ is setstate


def test_what_is_trained_is_found_among_everything_else(session, found, train, healthy):
    normalize, criterion = nn.BatchNorm1d(3, affine=False), nn.MSELoss()
    model = nn.Sequential(nn.Linear(3, 2))
    other = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [normalize(other(torch.randn(4, 3))).detach() for _ in range(3)]
    train(model, optimizer, batches, loss=lambda out: criterion(out, torch.zeros_like(out)))
    run = found()
    healthy(run)
    assert run.fact("model", "class") == "Sequential"
    assert [site.name for site in run.sites("weight")] == ["0.weight", "0.bias"]
    assert run.fact("loss", "function") == "mean-squared-error"
    assert run.steps == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_that_is_a_copy_is_found_and_its_original_is_not(session, found, train, healthy, copied):
    """As where a model is loaded whole, given to a spawned process, or kept beside its average."""
    original = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model = copied(original)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, torch.randn(3, 4, 3))
    run = found()
    healthy(run)
    assert [event.data["class"] for event in run.events_of("model")] == ["Sequential"]
    assert [site.name for site in run.sites("weight")] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert {site.name for site in run.sites("output")} >= {"0", "1", "2"}


def test_a_model_that_is_never_trained_writes_nothing(session, tmp_path):
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2))
    with torch.no_grad():
        model(torch.ones(1, 2))
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_that_steps_without_a_backward_pass_is_no_step(session, found):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # as loading a distributed checkpoint does
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert found().steps == 1


def test_a_loop_without_an_optimizer_has_a_step_a_backward_pass(session, found, healthy):
    model = nn.Linear(2, 1)
    losses = []
    for _ in range(5):
        loss = (model(torch.randn(8, 2)) - 1).square().mean()
        loss.backward()
        losses.append(loss.item())
        for parameter in model.parameters():
            parameter.data.add_(parameter.grad, alpha=-0.1)
            parameter.grad.zero_()
    run = found()
    healthy(run)
    np.testing.assert_allclose(run.table("run.loss").first(), losses, rtol=1e-6)
    assert np.isfinite(run.table("grad.norm").values).all()
    assert [event.data["what"] for event in run.events_of("coverage")] == ["updates"]


def by_autograd_grad(model, optimizer, loss):
    gradients = torch.autograd.grad(loss, tuple(model.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def by_compiled_step(model, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    torch.compile(optimizer.step, backend="eager")()


@pytest.mark.parametrize(("way", "word"), [(by_autograd_grad, "grad"), (by_compiled_step, "compile")])
def test_a_training_whose_steps_are_not_seen_is_told_of(session, found, healthy, way, word):
    torch._dynamo.reset()
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        way(model, optimizer, model(torch.ones(1, 2)).square().sum())
    healthy(found())
    (event,) = found().events_of("coverage")
    assert event.data["what"] == "training"
    assert word in event.data["because"]


def test_weights_that_move_between_two_backward_passes_of_a_step_are_no_training_unseen(session, found):
    """As in sharpness-aware minimization."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        for push in (0.1, -0.1):
            model(torch.ones(1, 2)).square().sum().backward()
            with torch.no_grad():
                model.weight += push
        optimizer.step()
    assert list(found().events_of("coverage")) == []
    assert found().steps == 4


def test_parameters_that_no_module_owns_are_recorded(session, found, healthy):
    weight = torch.randn(4, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (torch.randn(2, 4) @ weight).square().mean().backward()
        optimizer.step()
    run = found()
    healthy(run)
    assert [site.name for site in run.sites("grad")] == ["parameters.0"]
    assert run.steps == 3


def test_two_models_are_found_with_their_optimizers(session, found, healthy):
    maker, judge = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1))
    of_maker = torch.optim.Adam(maker.parameters())
    of_judge = torch.optim.Adam(judge.parameters())
    for _ in range(4):
        made = maker(torch.randn(4, 2))
        of_judge.zero_grad()
        judge(made.detach()).mean().backward()
        of_judge.step()
        of_maker.zero_grad()
        (-judge(made)).mean().backward()
        of_maker.step()
    run = found()
    healthy(run)
    assert {event.data["name"] for event in run.events_of("model")} == {"Linear", "Sequential"}
    assert {"Linear.weight", "Sequential.0.weight"} <= {site.name for site in run.sites("grad")}
    assert 4 <= run.steps <= 5


def test_an_optimizer_made_late_joins(session, found, train, healthy):
    model, told = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), []

    def loss(output):
        told.append(output.square().mean())
        return told[-1]

    train(model, torch.optim.SGD(model[1].parameters(), lr=0.1), torch.randn(3, 4, 2), loss)
    train(model, torch.optim.Adam(model.parameters()), torch.randn(5, 4, 2), loss)
    run = found()
    healthy(run)
    assert len(list(run.events_of("optimizer"))) == 2
    np.testing.assert_allclose(run.table("run.loss").first(), [one.item() for one in told], rtol=1e-6)
    assert (run.table("run.micro_batches").first() == 1).all()
    names = ["weight", "bias", "Sequential.0.weight", "Sequential.0.bias"]
    updates = run.table("update.norm")
    np.testing.assert_array_equal([np.isfinite(updates.column(name)).sum() for name in names], [8, 8, 5, 5])


def test_a_model_compiled_in_place_is_recorded_without_its_outputs(session, found, train, healthy):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 1)

        def forward(self, x):
            return self.inner(x).relu()

    model = Model()
    model.compile(backend="aot_eager", fullgraph=True)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(4, 3, 2))
    run = found()
    healthy(run)
    assert run.steps == 4
    assert np.isfinite(run.table("grad.norm").values).all()
    assert "output.rms" not in run
    assert "torch.compile" in run.fact("coverage", "because")


@pytest.mark.parametrize("measures", [False, True])
def test_a_module_apart_that_no_optimizer_holds_is_found_unless_it_only_measures(
    session, found, healthy, measures
):
    inner, outer = nn.Linear(4, 8), nn.Linear(8, 1)
    inner.train(not measures)
    optimizer = torch.optim.SGD(outer.parameters(), lr=0.1)
    for _ in range(4):
        loss = outer(inner(torch.randn(2, 4))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run = found()
    healthy(run)
    names = {site.name: site.optimized for site in run.sites("weight")}
    others = {} if measures else {"Linear.weight": False, "Linear.bias": False}
    assert names == {"weight": True, "bias": True} | others


def test_a_player_whose_optimizer_holds_the_other_is_found_at_its_own_backward_pass(session, found, healthy):
    generator, critic = nn.Linear(4, 8), nn.Linear(8, 1)
    optimizers = [torch.optim.Adam(critic.parameters(), lr=1e-3) for _ in range(2)]  # both of the critic
    for _ in range(3):
        for fake, optimizer in (
            (generator(torch.randn(2, 4)).detach(), optimizers[0]),
            (None, optimizers[1]),
        ):
            optimizer.zero_grad()
            critic(generator(torch.randn(2, 4)) if fake is None else fake).mean().backward()
            optimizer.step()
    run = found()
    healthy(run)
    owned = {site.name: site.optimized for site in run.sites("weight")}
    assert sorted(owned.values()) == [False, False, True, True]


def test_a_parameter_of_no_dimension_is_a_vector_of_one_and_no_matrix(session, found, healthy):
    model = nn.Linear(4, 2)
    model.temperature = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (model.temperature * model(torch.randn(2, 4))).square().mean().backward()
        optimizer.step()
    run = found()
    healthy(run)
    for kind in ("weight", "grad", "update", "optimizer", "initial"):
        assert {site.name: site.shape for site in run.sites(kind)}["temperature"] == (1,), kind
