from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn


class Model(nn.Module):
    """Takes anything, and trains on nothing of it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, first, second=None, *rest, mask=None):
        return self.layer(torch.ones(1, 1))


@pytest.fixture
def feed(watch):
    """Trains one step a call on the given arguments; returns the run."""

    def steps(*calls, micro_batches: int = 1):
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer) as recording:
            for number, (args, kwargs) in enumerate(calls, start=1):
                model(*args, **kwargs).sum().backward()
                if number % micro_batches == 0:
                    optimizer.step()
        return recording.run

    return steps


def test_inputs_have_the_names_of_the_arguments_and_their_ranges(feed, at, healthy):
    image, tokens = torch.tensor([[1.0, -4.0, 0.0]]), torch.tensor([[3, 5]])
    run = feed(((image, tokens, torch.ones(2)), {"mask": torch.ones(2, dtype=torch.bool)}))
    healthy(run)
    assert [(s.name, s.shape, s.dtype) for s in run.sites("batch")] == [
        ("first", (1, 3), "float32"),
        ("second", (1, 2), "int64"),
        ("[2]", (2,), "float32"),
        ("mask", (2,), "bool"),
    ]
    assert at(run, "batch.min")["first"] == -4
    assert at(run, "batch.absmax")["first"] == 4
    assert at(run, "batch.mean")["first"] == -1
    assert at(run, "batch.rms")["first"] == pytest.approx((17 / 3) ** 0.5)
    assert np.isnan(at(run, "batch.mean")["second"])
    assert all(value >= 0 for value in at(run, "batch.fingerprint").values())


def test_a_batch_that_comes_again_is_known_by_its_fingerprint(feed):
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    calls = [((batch,), {}) for batch in (one, other, one.clone())]
    first, second, third = feed(*calls).table("batch.fingerprint").column("first")
    assert first == third != second


def test_the_order_of_micro_batches_does_not_matter_but_what_they_are_does(feed):
    one, other, third = torch.randn(3, 4, 3)
    calls = [((batch,), {}) for batch in (one, other, other, one, one, third)]
    prints = feed(*calls, micro_batches=2).table("batch.fingerprint").column("first")
    assert prints[0] == prints[1] != prints[2]
    assert (prints < 2**24).all()


def test_samples_and_tokens_are_counted_over_micro_batches(feed, at):
    run = feed(*[((torch.zeros(4, 7, dtype=torch.long),), {})] * 3, micro_batches=3)
    assert at(run, "run.samples") == {"run": 12}
    assert at(run, "run.tokens") == {"run": 84}
    assert at(feed(((torch.zeros(5, 7),), {})), "run.samples") == {"run": 5}


def odd_inputs() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of prototypes
        return {
            "a mapping": {"a": torch.ones(2), "b": [torch.ones(1)]},
            "nothing": None,
            "text": "text",
            "an empty tensor": torch.zeros(0, 3),
            "a scalar": torch.tensor(3),
            "complex numbers": torch.tensor([[1j, 2.0]]),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "jagged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "sparse": torch.eye(3).to_sparse(),
            "meta": torch.ones(2, device="meta"),
            "doubles": torch.ones(2, dtype=torch.float64),
            "eight bits": torch.ones(2).to(torch.float8_e5m2),
        }


@pytest.mark.parametrize("kind", odd_inputs())
def test_no_input_disturbs_it(feed, at, healthy, recwarn, kind):
    value = odd_inputs()[kind]
    recwarn.clear()
    run = feed(((value, torch.full((2, 2), 3.0)), {}))
    healthy(run)
    assert at(run, "batch.mean")["second"] == 3
    assert [str(warning.message) for warning in recwarn] == []


def test_what_a_submodule_takes_is_recorded_where_the_root_is_never_called(session, found, healthy):
    class Container(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 2))

        def training_step(self, x):
            return self.net(x).square().mean()

    model = Container()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.training_step(torch.ones(4, 3)).backward()
        optimizer.step()
    healthy(found())
    assert [site.name for site in found().sites("batch")] == ["net.input"]
    assert (found().table("run.samples").first()[1:] == 4).all()


def test_the_call_in_which_training_is_discovered_is_not_missed(session, found, at):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.full((2, 3), 7.0)).sum().backward()
    optimizer.step()
    assert at(found(), "batch.max") == {"input": 7}
    assert at(found(), "run.samples") == {"run": 2}


def test_a_number_that_goes_with_a_batch_is_no_input(feed):
    run = feed(((torch.ones(4, 2),), {"mask": torch.tensor(512.0)}))
    assert [site.name for site in run.sites("batch")] == ["first"]


class Cell(nn.Module):
    """Returns what is to be carried to the next call."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 4), nn.Linear(4, 1)

    def forward(self, x, state, scale):
        out, state = self.cell(x, state)
        return self.head(out) * scale, state


def test_an_input_that_the_model_put_out_before_is_told_of(watch, healthy):
    model = Cell()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state, kept = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), torch.ones(1)
    with watch(model, optimizer) as recording:
        for _ in range(6):
            optimizer.zero_grad()
            out, state = model(torch.randn(5, 2, 3), state, kept)
            out.square().mean().backward()
            optimizer.step()
            state = tuple(part.detach() for part in state)
    healthy(recording.run)
    told = [event.data["input"] for event in recording.run.events_of("carried")]
    assert sorted(told) == ["state", "state[1]"]


def test_memory_that_is_used_again_makes_no_input_a_carried_one(watch):
    model = nn.Linear(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as recording:
        for _ in range(12):
            optimizer.zero_grad()
            loss = model(torch.randn(16, 16)).square().mean()
            loss.backward()
            optimizer.step()
            del loss
    assert not list(recording.run.events_of("carried"))


class HandsOn(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize("every", [1, 3, 10])
def test_data_that_the_model_hands_on_are_not_its_own(watch, every):
    model, data = HandsOn(3, 1), torch.randn(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=every) as recording:
        for _ in range(25):
            optimizer.zero_grad()
            model(data)[0].square().mean().backward()
            optimizer.step()
    assert not list(recording.run.events_of("carried"))


def test_the_state_of_one_module_is_known_beside_another_that_is_called_after_it(watch):
    encoder, decoder = Cell(), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.1)
    state = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    with watch([encoder, decoder], optimizer) as recording:
        for _ in range(6):
            optimizer.zero_grad()
            out, state = encoder(torch.randn(5, 2, 3), state, torch.ones(1))
            decoder(out).square().mean().backward()
            optimizer.step()
            state = tuple(part.detach() for part in state)
    told = [event.data["input"] for event in recording.run.events_of("carried")]
    assert {"Cell.state", "Cell.state[1]"} <= set(told)
