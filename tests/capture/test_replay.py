from __future__ import annotations

import io
import logging
import random
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stabdiag.capture import module_state
from stabdiag.capture.call import Call
from stabdiag.capture.hooks import on_forward
from stabdiag.capture.replay import refusal, replaying, undone


class Busy(nn.Module):
    """A forward pass with every side effect that models are known to have."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0
        self.seen = []
        self.tables = {"count": 0, "rows": []}
        self.names = set()
        self.loose = torch.zeros(4)
        self.generator = torch.Generator().manual_seed(3)
        self.noise = np.random.default_rng(5)
        self.config = type("Config", (), {})()
        self.config.temperature = 1.0
        self.last = None
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("replaced", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        self.tables["count"] += 1
        self.tables["rows"].append(self.calls)
        self.names.add(f"call {self.calls}")
        self.loose += 1
        self.config.temperature *= 0.5
        y = self.dropout(self.norm(self.linear(x)))
        y = y + random.random() + float(np.random.random()) + float(self.noise.random())
        y = y + torch.rand(4) + torch.rand(4, generator=self.generator)
        with torch.no_grad():
            self.average.lerp_(y.mean(0), 0.1)
        self.replaced = self.replaced + 1
        self.last = y
        self.extra = y.detach()
        self.eval() if self.calls == 7 else self.train()
        return y


def everything(module, identities=True):
    """All that a forward pass may change: values, and where asked for the objects that hold them."""
    found = {}
    for name, inner in module.named_modules():
        for position, (key, held) in enumerate(vars(inner).items()):
            if isinstance(held, torch.Generator):
                value = held.get_state().tolist()
            elif isinstance(held, np.random.Generator):
                value = held.bit_generator.state
            elif key == "config":
                value = vars(held)
            else:
                value = [] if isinstance(held, nn.Module) else held
            found[name, key] = position, str(value), id(held) if identities else None
        for key, tensor in (*inner._buffers.items(), *inner._parameters.items()):
            found[f"{name}.{key}"] = tensor.tolist(), tensor._version, str(tensor.grad), tensor.requires_grad
            if identities:
                found[f"{name}.{key}", "at"] = id(tensor), tensor.data_ptr(), id(tensor.grad)
    return found


def streams():
    numpy_state = np.random.get_state()
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        numpy_state[1].tolist(),
        numpy_state[2],
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
    )


def test_after_a_replay_everything_is_as_before():
    model = Busy()
    x = torch.randn(8, 4)
    for _ in range(6):
        model(x).sum().backward()
    before, outside = everything(model), streams()
    with undone(model):
        assert replaying()
        model(x).sum().backward()
        model.linear.weight.requires_grad_(False)
        torch.set_default_dtype(torch.float64)
        torch.set_autocast_enabled("cpu", True)
        assert everything(model) != before
    assert not replaying()
    assert everything(model) == before
    assert streams() == outside


@pytest.mark.parametrize("forgotten", ["mappings", "sequences", "generators", "tensors", "parameters"])
def test_each_part_of_what_is_put_back_matters(monkeypatch, forgotten):
    model = Busy()
    x = torch.randn(8, 4)
    model(x).sum().backward()
    before = everything(model)
    monkeypatch.setattr(module_state, f"_put_back_{forgotten}", lambda kept: None)
    with undone(model):
        model(x)
    assert everything(model) != before


def test_training_goes_on_to_the_bit_as_if_nothing_had_been_replayed():
    def train(replay):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        model = Busy()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        losses = []
        for _ in range(5):
            x = torch.randn(8, 4)
            call = Call(model, (x,), {})
            output = model(x)
            if replay:  # while the graph of the script's own call is alive
                with undone(model):
                    call().sum().backward()
            loss = output.square().mean()
            optimizer.zero_grad()
            loss.backward()
            if replay:
                with undone(model):
                    call().sum().backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, everything(model, identities=False), torch.rand(3).tolist()

    assert train(True) == train(False)


def test_an_error_in_the_replay_leaves_everything_as_before():
    model = Busy()
    x = torch.randn(8, 4)
    model(x)
    before, outside = everything(model), streams()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), undone(model):
        model(torch.randn(8, 5))
    assert everything(model) == before
    assert streams() == outside


def test_a_call_repeats_dropout_autocast_and_its_containers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    inputs = {"rows": [torch.randn(3, 4), torch.randn(3, 4)]}

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, batch, scale=1):
            return self.inner(batch["rows"].pop()) * scale

    reads = Reads()
    with torch.autocast("cpu", torch.bfloat16):
        call = Call(reads, (inputs,), {"scale": 3})
        expected = reads(inputs, scale=3)
    with undone(reads):
        first = call()
    with undone(reads):
        second = call()
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    with undone(reads):
        assert call(torch.float32).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_a_call_knows_when_it_cannot_be_repeated():
    model = nn.Linear(4, 4)
    x = torch.randn(3, 4)
    call = Call(model, (x,), {})
    assert call.refusal is None
    x.add_(1)
    assert call.refusal == "an input was changed in place since the call"
    assert Call(model, (iter([x]),), {}).refusal.startswith("an argument is a list_iterator")
    assert Call(model, (x, None, 2.0, "a", (x, {"b": [x]})), {}).refusal is None


def test_replacing_parameters_reaches_tied_weights_and_lists_of_them():
    model = nn.LSTM(3, 5)
    x = torch.randn(4, 2, 3)
    expected = nn.LSTM(3, 5)
    replacing = {
        id(old): nn.Parameter(new.detach().clone())
        for old, new in zip(model.parameters(), expected.parameters(), strict=True)
    }
    with undone(model, replacing):
        output = model(x)[0]
        gradients = torch.autograd.grad(output.sum(), list(replacing.values()))
    assert torch.equal(output, expected(x)[0])
    assert all(g.abs().sum() > 0 for g in gradients)
    assert [id(p) for p in model._flat_weights] == [id(p) for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())

    tied = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7, bias=False))
    tied[1].weight = tied[0].weight
    weight = nn.Parameter(torch.randn(7, 3))
    with undone(tied, {id(tied[0].weight): weight}):
        assert tied[0].weight is weight
        assert tied[1].weight is weight
    assert tied[0].weight is tied[1].weight is not weight


def test_the_graph_of_the_script_outlives_a_replay():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model[1].register_buffer("mask", torch.ones(4))
    x = torch.randn(8, 4)
    loss = (model(x) * model[1].mask.sum()).sum() + (model[1].running_mean * model[0].bias).sum()
    with undone(model):
        model(x)
    loss.backward()


def test_what_a_replay_prints_logs_and_warns_of_is_dropped_and_that_of_other_threads_is_not(capsys):
    class Talks(nn.Module):
        def forward(self, x):
            print("printed")
            print("printed", file=sys.stderr)
            logger.warning("logged")
            warnings.warn("warned", stacklevel=1)
            return x

    records = []
    logger = logging.getLogger("stabdiag-test")
    handler = logging.StreamHandler(stream := io.StringIO())
    logger.addHandler(handler)
    try:
        model = Talks()
        with warnings.catch_warnings(record=True) as records:
            warnings.simplefilter("always")
            with undone(model):
                model(torch.zeros(1))
                other = threading.Thread(target=model, args=(torch.zeros(1),))
                other.start()
                other.join()
    finally:
        logger.removeHandler(handler)
    printed = capsys.readouterr()
    assert (printed.out, printed.err, stream.getvalue()) == ("printed\n", "printed\n", "logged\n")
    assert [str(record.message) for record in records] == ["warned"]


def test_a_replay_does_not_make_python_forget_which_warnings_it_has_shown():
    script = (
        "import warnings, torch\n"
        "from stabdiag.capture.replay import undone\n"
        "for _ in range(3):\n"
        "    with undone(torch.nn.Linear(2, 2)):\n"
        "        pass\n"
        "    warnings.warn('once')\n"
    )
    import subprocess

    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stderr.count("once") == 1


def test_a_signal_waits_until_the_model_is_whole_again():
    model = nn.Linear(2, 2)
    found = []
    before = signal.signal(signal.SIGUSR1, lambda *_: found.append(model.weight))
    try:
        with undone(model, {id(model.weight): nn.Parameter(torch.zeros(2, 2))}):
            signal.raise_signal(signal.SIGUSR1)
            assert found == []
        assert found[0] is model.weight
        assert signal.getsignal(signal.SIGUSR1) is not None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_our_hooks_are_off_in_a_replay_and_on_afterwards():
    model = nn.Sequential(nn.Linear(2, 2))
    seen = []
    handle = on_forward(model[0], lambda *_: seen.append(1))
    with undone(model):
        model(torch.zeros(1, 2))
    assert seen == []
    model(torch.zeros(1, 2))
    assert seen == [1]
    handle.remove()
    model(torch.zeros(1, 2))
    assert seen == [1]


def hooked():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def backward_hooked():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_full_backward_hook(lambda *_: None)
    return model


def holding(**attributes):
    model = nn.Sequential(nn.Linear(2, 2))
    vars(model).update(attributes)
    return model


class OfAnotherKind(nn.Parameter):
    pass


def odd_parameter():
    model = nn.Linear(2, 2)
    model.weight = OfAnotherKind(torch.zeros(2, 2))
    return model


@pytest.mark.parametrize(
    ("make", "because"),
    [
        (hooked, "has hooks of the script's own"),
        (backward_hooked, "has hooks of the script's own"),
        (lambda: torch.jit.script(nn.Linear(2, 2)), "is scripted"),
        (lambda: nn.LazyLinear(2), "has no shape yet"),
        (lambda: nn.Embedding(3, 2, max_norm=1.0), "max_norm"),
        (odd_parameter, "holds a OfAnotherKind"),
        (lambda: nn.Linear(2, 2, device="meta"), "cannot be written to"),
        (lambda: holding(stream=iter([1, 2])), "cannot be wound back"),
        (lambda: holding(data=torch.empty(17 * 2**20)), "68 MiB besides parameters"),
    ],
)
def test_what_could_not_be_undone_is_refused(make, because):
    assert because in refusal(make())


def test_global_hooks_of_the_script_refuse_a_replay_and_reparametrisations_do_not():
    model = nn.Linear(2, 2)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert refusal(model) == "the script has hooks on all modules"
    handle.remove()
    assert refusal(model) is None
    assert refusal(nn.utils.weight_norm(nn.Linear(2, 2))) is None
    assert refusal(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))) is None


def test_spectral_norm_keeps_its_vectors_through_a_replay():
    model = nn.utils.spectral_norm(nn.Linear(3, 3))
    model(torch.randn(2, 3))
    before = model.weight_u.clone(), model.weight.detach().clone()
    with undone(model):
        model(torch.randn(2, 3))
        assert not torch.equal(model.weight_u, before[0])
    assert torch.equal(model.weight_u, before[0])
    assert torch.equal(model.weight, before[1])


def test_a_module_that_keeps_its_activations_is_replayed_without_copies_of_them():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            self.kept = F.relu(self.linear(x))
            return self.kept

    model = Keeps()
    kept = model(torch.ones(1, 2))
    with undone(model):
        model(torch.ones(1, 2))
        assert model.kept is not kept
    assert model.kept is kept
