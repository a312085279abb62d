"""What the flight recorder keeps of each step, and what makes it write."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from torch import nn

import stabdiag
from stabdiag.capture.flight import Flight
from stabdiag.capture.open_step import OpenStep
from stabdiag.capture.session import Session
from stabdiag.capture.transfer import HostCopy
from stabdiag.core.cadence import Cadence
from stabdiag.core.tier import Tier
from stabdiag.reference.kept_step import calls_of, restore_random
from stabdiag.stats.fingerprint import fingerprint
from stabdiag.store.flight import ask_for_record, flight_records
from stabdiag.store.reader import load

NEVER = Cadence(budget=1e-9)
"""All steps but the first ones are of tier NONE."""


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def train(model, optimizer, batches, clip=True, after=lambda step: None):
    """The norms of the gradients before clipping, [steps, parameters]."""
    norms = []
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        norms.append([p.grad.norm().item() for p in model.parameters()])
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        after(step)
    return np.array(norms, np.float32)


@pytest.fixture
def recorded(tmp_path):
    """Trains with a session of the given cadence; gives what `train` gives, and the records."""

    def run(batches, cadence=NEVER, because="wanted", **more):
        session = Session(tmp_path, cadence)
        model, optimizer = network()
        try:
            norms = train(model, optimizer, batches, **more)
            if because:
                session.write_flight(because)
        finally:
            session.end()
        errors = [event.data for event in load(tmp_path).events_of("recorder-error")]
        assert errors == []
        return norms, flight_records(tmp_path)

    return run


def batches(count: int) -> list[torch.Tensor]:
    return [torch.randn(16, 4) for _ in range(count)]


@pytest.mark.parametrize("cadence", [NEVER, Cadence(every=3), Cadence(every=1)], ids=["never", "3", "1"])
def test_the_last_64_steps_are_there_at_full_rate_whatever_was_recorded(recorded, cadence):
    given = batches(100)
    norms, (record, *_) = recorded(given, cadence)
    assert record.steps == list(range(36, 100))
    assert record.parameters == ("0.weight", "0.bias", "3.weight", "3.bias")
    np.testing.assert_allclose(record.rows["grad"], norms[36:], rtol=1e-5)
    assert record.inputs == ("input",)
    np.testing.assert_array_equal(
        record.rows["fingerprint"][:, 0], [fingerprint(batch).item() for batch in given[36:]]
    )
    np.testing.assert_array_equal(record.rows["min"][:, 0], [batch.min().item() for batch in given[36:]])
    np.testing.assert_array_equal(record.rows["max"][:, 0], [batch.max().item() for batch in given[36:]])
    assert np.isfinite(record.rows["loss"]).all()
    assert (record.rows["lr"] == np.float32(1e-2)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_what_travels_from_a_device_says_the_same_as_what_is_on_the_host(monkeypatch, dtype):
    """The bits of an integer travel as two floating numbers, among others."""
    module = nn.Linear(4, 4)
    given = [(torch.randn(n, 4) * 50).to(dtype) for n in (3, 700, 5000)]

    def told() -> dict[str, dict[str, float]]:
        step = OpenStep()
        step.sample("", module, tuple(given[:1]), {"odd": given[1], "large": given[2]})
        step.sample("", module, tuple(given[1:2]), {})
        return step.inputs(HostCopy(step.tensors()).arrays())

    on_host = told()
    monkeypatch.setattr("stabdiag.capture.open_step._elsewhere", lambda _: True)
    assert len(OpenStep().tensors()) == 0
    np.testing.assert_equal(told(), on_host)
    assert on_host["fingerprint"]["odd"] == fingerprint(given[1]).item()
    assert on_host["fingerprint"]["large"] == fingerprint(given[2]).item()
    together = int(fingerprint(given[0]).item() + fingerprint(given[1]).item()) % 2**24
    assert on_host["fingerprint"]["input"] == together


def test_what_was_seen_of_a_batch_is_what_it_was_when_the_model_got_it(recorded):
    batch = torch.randn(16, 4)
    prints = []

    def overwrite(_step):
        prints.append(fingerprint(batch).item())
        batch.normal_()

    _, (record, *_) = recorded([batch] * 40, Cadence(1e-9, keep_batches=3), after=overwrite)
    np.testing.assert_array_equal(record.rows["fingerprint"][:, 0], prints)
    (((kept,), _),) = calls_of(record.batches[38])
    assert fingerprint(kept).item() == prints[38]


def test_without_clipping_gradients_are_known_where_they_were_recorded(recorded):
    norms, (record, *_) = recorded(batches(40), Cadence(every=10), clip=False)
    np.testing.assert_allclose(record.rows["grad"], norms, rtol=1e-5)


def test_a_parameter_without_a_gradient_shifts_no_other(tmp_path):
    session = Session(tmp_path, NEVER)
    model, _ = network()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for batch in batches(20):
        optimizer.zero_grad()
        model(batch).mean().backward()
        expected = model[3].weight.grad.norm().item()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    session.write_flight("wanted")
    session.end()
    record = flight_records(tmp_path)[0]
    last = dict(zip(record.parameters, record.rows["grad"][-1].tolist(), strict=True))
    assert last["3.weight"] == pytest.approx(expected)
    assert np.isnan(last.get("0.weight", np.nan))


def test_the_random_state_gives_the_same_dropout_again(recorded):
    masks = []

    def note(module, _args, output):
        if isinstance(module, nn.Dropout):
            masks.append(output != 0)

    handle = nn.modules.module.register_module_forward_hook(note)
    _, (record, *_) = recorded(batches(30))
    handle.remove()
    for step in (7, 29):
        restore_random(record.rows[step])
        assert torch.equal(nn.Dropout(0.5)(torch.ones(16, 8)) != 0, masks[step])


def test_states_of_python_and_numpy_are_known_where_nothing_was_drawn(recorded):
    def draw(step):
        if step == 20:
            random.random()

    _, (record, *_) = recorded(batches(40), after=draw)
    known = record.rows["python"].any(axis=1)
    # Steps 5 to 39 are not recorded: the state of step 4 is not that at the end.
    assert known[:5].all()
    assert not known[5:].any()
    assert record.rows["numpy"].any(axis=1).all()
    restore_random(record.rows[3])
    restored = np.random.get_state()[1]
    np.testing.assert_array_equal(record.rows["numpy"][3][:624], restored)


def test_where_batches_are_kept_every_state_is(recorded):
    draws = []

    def draw(_step):
        draws.append((random.gauss(0, 1), np.random.randn()))

    _, (record, *_) = recorded(batches(20), Cadence(1e-9, keep_batches=2), after=draw)
    restore_random(record.rows[12])
    assert (random.gauss(0, 1), np.random.randn()) == draws[12]
    restore_random(record.rows[13])  # holds back the second of two normal numbers
    assert (random.gauss(0, 1), np.random.randn()) == draws[13]


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x, pair, *, options, odd=None):
        return self.layer(x + pair[0]) * options["scale"]


def test_batches_come_back_as_they_were_given(tmp_path):
    model = Picky()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = []
    with stabdiag.watch(model, optimizer, log_dir=tmp_path, keep_batches=2) as recording:
        for step in range(4):
            x = torch.randn(2, 3)
            pair = (torch.randn(3), [torch.arange(3), None])
            options = {"scale": 0.5, "name": "a", "flag": True, "mask": torch.ones(2, dtype=torch.bool)}
            kept.append((x, pair, options))
            output = model(x, pair, options=options, odd=object())
            (output * (float("nan") if step == 3 else 1)).sum().backward()
            optimizer.step()
        path = recording.path
    record = flight_records(path)[0]
    assert list(record.batches) == [2, 3]
    (((x, pair), named),) = calls_of(record.batches[3])
    torch.testing.assert_close(x, kept[3][0], rtol=0, atol=0)
    torch.testing.assert_close(pair[0], kept[3][1][0], rtol=0, atol=0)
    assert isinstance(pair, tuple)
    assert pair[1][1] is None
    assert pair[1][0].tolist() == [0, 1, 2]
    assert named["odd"] is NotImplemented
    assert (named["options"]["scale"], named["options"]["name"]) == (0.5, "a")
    assert named["options"]["mask"].dtype == torch.bool


# What makes it write


def test_a_loss_that_is_not_finite_is_a_reason_and_its_step_the_last_of_the_record(recorded):
    given = batches(90)
    given[80][3] = float("inf")
    _, (record, live) = recorded(given, because="")
    assert (record.step, record.because) == (80, "the loss is not finite")
    assert record.steps == list(range(17, 81))
    assert live.step is None
    assert live.steps == list(range(26, 90))


def test_a_step_that_the_gradient_scaler_withheld_is_none():
    flight = Flight()
    written = []
    flight.write = written.append
    flight.take(0, 0.0, [], {"loss": 1.0, "grad_norm": float("inf"), "skipped": 1.0})
    assert written == []
    flight.take(1, 0.0, [], {"loss": 1.0, "grad_norm": float("inf"), "skipped": 0.0})
    assert written == ["the gradients are not finite"]


def test_an_exception_writes_the_step_that_was_under_way(tmp_path):
    model, optimizer = network()
    bad = torch.full((16, 4), 7.0)

    def ends_badly():
        with stabdiag.watch(model, optimizer, log_dir=tmp_path, budget=1e-9, keep_batches=2):
            train(model, optimizer, batches(20))
            model(bad)
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        ends_badly()
    run = stabdiag.load(tmp_path)
    (record,) = flight_records(run.path)
    assert record.because == "the script ended with ValueError"
    assert record.steps == list(range(21))
    assert record.rows["max"][-1].tolist() == [7.0]
    assert np.isnan(record.rows["loss"][-1])
    assert list(record.batches) == [19, 20]
    (((kept,), _),) = calls_of(record.batches[20])
    assert torch.equal(kept, bad)
    (event,) = run.events_of("flight")
    assert (event.step, event.data["first"], event.data["batches"]) == (20, 0, [19, 20])


def test_somebody_who_asks_is_answered_within_a_second_or_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr("stabdiag.capture.flight.LOOK", 0.0)
    session = Session(tmp_path, NEVER)
    model, optimizer = network()
    asked = {40: "loss-divergence since 7", 50: "loss-divergence since 7", 60: "dead-units since 1"}

    def ask(step):
        if step in asked:
            ask_for_record(tmp_path, asked[step])

    train(model, optimizer, batches(70), after=ask)
    session.end()
    records = [record for record in flight_records(tmp_path) if record.step is not None]
    assert [(r.step, r.because) for r in records] == [(41, asked[40]), (61, asked[60])]


def test_a_process_writes_few_records(tmp_path):
    session = Session(tmp_path, NEVER)
    model, optimizer = network()
    train(model, optimizer, batches(20), after=lambda step: session.write_flight(f"reason {step // 2}"))
    session.end()
    steps = [record.step for record in flight_records(tmp_path)]
    assert steps == [0, 2, 4, 6, None]


def test_a_healthy_end_leaves_nothing(tmp_path):
    model, optimizer = network()
    with stabdiag.watch(model, optimizer, log_dir=tmp_path, every=1) as recording:
        train(model, optimizer, batches(20))
        assert (recording.path / "flight" / "rank-0").exists()
    assert not (recording.path / "flight").exists()


# What it must not do


def trained(watching: bool, folder, **more) -> tuple[torch.Tensor, list[float]]:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    model, optimizer = network()
    recording = stabdiag.watch(model, optimizer, log_dir=folder, **more) if watching else None
    train(model, optimizer, batches(70))
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    drawn = [torch.rand(()).item(), random.random(), np.random.rand()]
    if recording is not None:
        recording.close()
    return weights, drawn


@pytest.mark.parametrize("more", [{"budget": 1e-9}, {"every": 3}], ids=["never", "3"])
def test_training_is_the_same_to_the_bit_with_batches_kept(tmp_path, more):
    weights, drawn = trained(False, tmp_path)
    again, drawn_again = trained(True, tmp_path, keep_batches=8, **more)
    assert torch.equal(weights, again)
    assert drawn == drawn_again


@pytest.mark.parametrize("method", ["on_call", "on_clip", "close", "_arrive", "take"])
def test_an_error_in_it_leaves_training_and_the_other_probes_alone(tmp_path, monkeypatch, method):
    weights, _ = trained(False, tmp_path)

    def fails(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(Flight, method, fails)
    again, _ = trained(True, tmp_path, every=3)
    assert torch.equal(weights, again)
    run = stabdiag.load(tmp_path)
    assert [event.data["probe"] for event in run.events_of("recorder-error")] == ["flight"]
    assert run.table("grad.norm").steps[-1] == 69


def test_a_folder_that_cannot_be_written_costs_the_record_alone(tmp_path):
    (tmp_path / "flight").write_text("in the way")
    session = Session(tmp_path, Cadence(every=3))
    train(*network(), batches(20))
    assert list(load(tmp_path).events_of("recorder-error")) == []
    session.write_flight("wanted")
    session.end()
    run = load(tmp_path)
    assert [event.data["probe"] for event in run.events_of("recorder-error")] == ["flight"]
    assert run.steps == 20


def test_a_forked_child_leaves_the_ring_to_its_parent(tmp_path):
    session = Session(tmp_path, NEVER)
    model, optimizer = network()
    train(model, optimizer, batches(10))
    child = os.fork()
    if child == 0:
        session.forked()
        train(model, optimizer, batches(40))
        os._exit(0)
    os.waitpid(child, 0)
    session.write_flight("wanted")
    session.end()
    record = flight_records(tmp_path)[0]
    assert (record.rank, record.steps) == (0, list(range(10)))


def test_unrecorded_steps_only_note_what_is_there(tmp_path):
    """The rest is done for many of them at once."""
    session = Session(tmp_path, NEVER)
    model, optimizer = network()
    seen = []

    def look(_step):
        seen.append(len(flight_records(tmp_path)[0].rows))

    train(model, optimizer, batches(80), after=look)
    session.end()
    assert (load(tmp_path).table("run.tier").first()[5:] == Tier.NONE).all()
    assert seen[:5] == [1, 2, 3, 4, 5]
    assert set(seen[5:]) == {5, 37, 64}
