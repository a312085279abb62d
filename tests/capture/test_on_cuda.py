from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stabdiag.core.tier import Tier
from stabdiag.reference.model import GPT, Config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
KINDS = ("output", "output_grad", "grad", "weight", "update", "attention", "logits", "optimizer")


@contextlib.contextmanager
def synchronisation_is_an_error():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def training(device, precision=None):
    """A step of a GPT, as a function of its tokens, and the model and the optimizer."""
    torch.manual_seed(0)
    model = GPT(Config(vocabulary=64, context=32, layers=2, heads=2, width=64)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(tokens):
        with torch.autocast(device, precision, enabled=precision is not None):
            logits = model(tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step, model, optimizer


def batches(device, count):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(64, (4, 33), generator=generator).to(device) for _ in range(count)]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("cadence", [{"every": 1}, {"budget": "2%"}])
def test_no_step_of_ours_waits_for_the_device(watch, healthy, precision, cadence):
    step, model, optimizer = training("cuda", precision)
    tokens = batches("cuda", 24)
    step(tokens[0])
    with watch(model, optimizer, **{"every": None, **cadence}) as recording, synchronisation_is_an_error():
        for each in tokens:
            step(each)
    healthy(recording.run)
    assert {site.kind for kind in KINDS for site in recording.run.sites(kind)} == set(KINDS)
    if "every" in cadence:
        assert set(recording.run.table("run.tier").first()) == {Tier.STANDARD, Tier.SLOW}


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_training_is_the_same_to_the_bit(watch, healthy, precision):
    def trained(observe):
        step, model, optimizer = training("cuda", precision)
        with contextlib.ExitStack() as stack:
            recording = stack.enter_context(watch(model, optimizer)) if observe else None
            losses = [step(each).item() for each in batches("cuda", 60)]
        if recording is not None:
            healthy(recording.run)
            assert Tier.RARE in recording.run.table("run.tier").first()
        return losses, [p.detach().clone() for p in model.parameters()]

    (losses, weights), (watched_losses, watched_weights) = trained(False), trained(True)
    assert watched_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(weights, watched_weights, strict=True))


def test_the_numbers_are_those_of_the_host(watch, healthy):
    runs = {}
    for device in ("cpu", "cuda"):
        step, model, optimizer = training(device)
        with watch(model, optimizer) as recording:
            for each in batches(device, 3):
                step(each)
        healthy(recording.run)
        runs[device] = recording.run
    for kind in ("run", *KINDS):
        for series in (name for name in runs["cpu"].series if name.startswith(f"{kind}.")):
            if "time" in series or series in ("run.memory", "run.reserved", "run.resident", "run.overhead"):
                continue
            host, device = (runs[name].table(series).values for name in ("cpu", "cuda"))
            scale = np.nanmax(np.abs(host[np.isfinite(host)]), initial=0.0)
            np.testing.assert_allclose(device, host, rtol=0.02, atol=2e-3 * scale + 1e-7, err_msg=series)


def test_a_value_that_is_lost_on_the_device_is_found_in_its_layer(watch):
    step, model, optimizer = training("cuda")
    with watch(model, optimizer, every=3) as recording:
        for number, each in enumerate(batches("cuda", 8)):
            if number == 4:
                with torch.no_grad():
                    model.blocks[1].mlp.expand.bias[0] = float("inf")
            step(each)
    first = next(iter(recording.run.events_of("nonfinite")))
    assert first.step in (4, 5)
