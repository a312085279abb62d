"""torch.compile: the graph is the script's own, and what runs in it is seen beside it."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.utils as dynamo
from torch import nn

from stabdiag.capture.session import Session
from stabdiag.core.cadence import Cadence


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.2))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.LeakyReLU()(self.inner(x)))  # modules may be made while it is traced


def compiled(way: str) -> tuple[nn.Module, nn.Module]:
    """The model, and what the script calls."""
    model = Net()
    if way == "in place":
        model.compile(backend="aot_eager")
        return model, model
    if way == "a part":
        model.inner = torch.compile(model.inner, backend="aot_eager")
        return model, model
    backend = "inductor" if way == "inductor" else "aot_eager"
    return model, torch.compile(model, backend=backend, fullgraph=way == "full graph")


def train(way: str, watch=None):
    torch._dynamo.reset()
    dynamo.counters.clear()
    torch.manual_seed(0)
    model, called = compiled(way)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recording = watch(called, optimizer, every=3) if watch else None
    for _ in range(8):
        optimizer.zero_grad()
        called(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
    if recording is not None:
        recording.close()
    state = [*model.parameters(), *model.buffers(), torch.get_rng_state()]
    graphs = dynamo.counters["stats"]["unique_graphs"], dict(dynamo.counters["graph_break"])
    return [tensor.detach().clone() for tensor in state], graphs, recording


WAYS = ["aot", "full graph", "in place", "a part", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.parametrize("way", WAYS)
def test_compiled_training_is_the_same_to_the_bit_and_has_the_same_graphs(watch, healthy, recwarn, way):
    expected, graphs, _ = train(way)
    before = len(recwarn)
    state, watched, recording = train(way, watch)
    assert len(recwarn) == before
    healthy(recording.run)
    assert watched == graphs
    assert all(torch.equal(one, other) for one, other in zip(expected, state, strict=True))


@pytest.mark.parametrize("way", ["aot", "full graph", "a part"])
def train_by_function(way: str):
    """Trains a model that runs inside a compiled function."""
    torch._dynamo.reset()
    dynamo.counters.clear()
    torch.manual_seed(0)
    model = Net()
    compile = torch.compile(backend="aot_eager")
    if way == "a method":
        model.inner.forward = compile(model.inner.forward)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def loss(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(x).square().mean()

    step = (
        loss if way == "a method" else compile(loss if way == "an argument" else lambda _, x: loss(model, x))
    )
    for _ in range(8):
        optimizer.zero_grad()
        step(model, torch.randn(8, 6)).backward()
        optimizer.step()
    state = [*model.parameters(), *model.buffers(), torch.get_rng_state()]
    graphs = dynamo.counters["stats"]["unique_graphs"], dict(dynamo.counters["graph_break"])
    return [tensor.detach().clone() for tensor in state], graphs


@pytest.mark.parametrize("way", ["a closure", "an argument", "a method"])
def test_a_compiled_function_has_the_same_graphs_and_trains_the_same_to_the_bit(
    tmp_path, found, healthy, recwarn, way
):
    expected, graphs = train_by_function(way)
    before = len(recwarn)
    session = Session(tmp_path, Cadence(every=3))
    state, watched = train_by_function(way)
    session.end()
    assert len(recwarn) == before
    healthy(found())
    assert watched == graphs
    assert all(torch.equal(one, other) for one, other in zip(expected, state, strict=True))
    told = [event.data["what"] for event in found().events_of("coverage")]
    hidden = 4 if way == "a method" else 6
    assert told == [f"outputs and attention of {hidden} modules"]
    seen = {site.name for site in found().sites("output")}
    assert seen == ({"Net", "head"} if way == "a method" else set())
    assert "grad.norm" in found()
    assert "optimizer.rms" in found()


def test_a_compiled_helper_hides_no_module(tmp_path, found, healthy):
    torch._dynamo.reset()
    mean = torch.compile(lambda x: x.square().mean(), backend="aot_eager")
    session = Session(tmp_path, Cadence(every=1))
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        mean(model(torch.randn(8, 6))).backward()
        optimizer.step()
    session.end()
    healthy(found())
    assert list(found().events_of("coverage")) == []
    assert {site.name for site in found().sites("output")} >= {"inner.0", "head", "Net"}


@pytest.mark.parametrize("way", ["aot", "full graph", "a part"])
def test_outputs_inside_are_those_of_the_same_batch_run_eagerly(watch, at, way):
    *_, recording = train(way, watch)
    torch.manual_seed(0)
    model = Net()
    seen = {}
    for name in ("inner.0", "inner.1", "inner.2", "head"):
        model.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: seen.update({name: out.detach().square().mean().sqrt().item()})
        )
    model(torch.randn(8, 6))
    recorded = at(recording.run, "output.rms")
    for name, rms in seen.items():
        assert recorded[name] == pytest.approx(rms, rel=1e-4), name


@pytest.mark.parametrize(("way", "told"), [("aot", ["gradients", "logits"]), ("a part", ["gradients"])])
def test_what_an_eager_run_does_not_show_is_told(watch, way, told):
    *_, recording = train(way, watch)
    assert [e.data["what"].split()[0] for e in recording.run.events_of("coverage")] == told


def test_what_is_not_seen_is_told(watch):
    *_, recording = train("in place", watch)
    assert any("torch.compile" in event.data["because"] for event in recording.run.events_of("coverage"))
    assert "grad.norm" in recording.run
    assert "update.ratio" in recording.run
