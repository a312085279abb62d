"""Every fault does something in every architecture that has the traits it needs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

import pytest
import torch

from stabdiag.zoo import spots
from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.fault import FAULTS
from stabdiag.zoo.optimizer import OPTIMIZERS

WHERE = ("llama", "vit", "denoiser", "ssm", "two-tower", "graph")
STEPS, BATCH = 6, 2
WAITS = {"stalled-loader"}
LEAVE_THE_WEIGHTS = {"memory-leak", "batchnorm-lag", "slow-rank", "desynced-replica"}
"""These harm the machine, evaluations, or another rank."""
PREFERRED = ("adamw", "adamw-999", "sgd", "lion")


def fitting(architecture):
    for fault in FAULTS:
        optimizer = next((o for o in PREFERRED if fault.fits(ARCHITECTURES[architecture], OPTIMIZERS[o])), "")
        if optimizer and fault.id not in WAITS:
            yield architecture, optimizer, fault.id


PAIRS = [pair for architecture in WHERE for pair in fitting(architecture)]


def training(architecture, optimizer, fault, **broken):
    shape = {**fault.shape, **broken}
    return ARCHITECTURES[architecture].training(optimizer, 3, fault.batch or BATCH, STEPS, **shape)


@lru_cache
def healthy_weights(architecture, optimizer, fault_with_shape):
    twin = training(architecture, optimizer, FAULTS[fault_with_shape])
    twin.prepare()
    twin.run()
    return {name: p.detach() for name, p in twin.model.named_parameters()}


@pytest.mark.parametrize(("architecture", "optimizer", "name"), PAIRS)
def test_it_is_planted_at_places_that_are_there_and_changes_what_is_learned(architecture, optimizer, name):
    fault = FAULTS[name]
    run = training(architecture, optimizer, fault, **fault.broken)
    truth = fault.plant(run, fault.doses[-1])
    run.prepare()
    run.run()
    assert len(run.losses) == STEPS
    after = {name: p.detach() for name, p in run.model.named_parameters()}
    places = {"rank-1", *after, *(n for n, _ in run.model.named_modules())}
    for glob in truth.sites:
        assert any(fnmatchcase(place, glob) for place in places), glob
    twin = healthy_weights(architecture, optimizer, name if fault.shape or fault.batch else "lr-too-high")
    same = [n for n, w in after.items() if n in twin and torch.equal(w, twin[n])]
    assert (len(same) == len(twin)) == (name in LEAVE_THE_WEIGHTS)


@pytest.mark.parametrize("architecture", WHERE)
def test_queries_are_found_in_some_block_where_it_is_said_that_there_is_attention(architecture):
    entry = ARCHITECTURES[architecture]
    built = entry.training("adamw", 1, BATCH)
    if "attention" in entry.traits:
        owner, weight = spots.queries(built)
        assert owner.startswith(built.parts.blocks)
        assert weight.any()
    if "head" in entry.traits:
        name, _ = spots.head(built)
        assert not any(name.startswith(block) for block in built.parts.blocks)


@pytest.mark.parametrize("architecture", [a.id for a in ARCHITECTURES if "stream" in a.traits])
def test_what_a_block_of_a_stream_adds_comes_out_of_its_closing_layer(architecture):
    """With that layer at a hundredth, what is added to the stream is smaller by what it gave."""
    built = ARCHITECTURES[architecture].training("adamw", 1, BATCH)
    block = built.parts.blocks[-1]
    added = []
    built.model.get_submodule(block).register_forward_hook(
        lambda module, inputs, output: added.append((output - inputs[0]).detach().norm())
    )
    layer = spots.closing(built, block)
    for factor in (1.0, 100.0):
        spots.scaled(layer.weight, factor)()
        built.loss(built.parts.batches(0))
    assert added[1] > 10 * added[0]


@pytest.mark.parametrize("architecture", [a.id for a in ARCHITECTURES if "relu" in a.traits])
def test_a_relu_below_its_bias_gives_nothing(architecture):
    built = ARCHITECTURES[architecture].training("adamw", 1, BATCH)
    name, bias = spots.rectified(built)
    bias.data -= 1000
    alive = []
    for module in built.model.get_submodule(name).children():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda module, inputs, output: alive.append(bool(output.any())))
    built.loss(built.parts.batches(0))
    assert not all(alive)
    assert alive


@pytest.mark.parametrize("architecture", [a.id for a in ARCHITECTURES if "positions" in a.traits])
def test_what_is_learned_of_the_first_position_is_found(architecture):
    built = ARCHITECTURES[architecture].training("adamw", 1, BATCH)
    learned = spots.positions(built.model)
    before = float(built.loss(built.parts.batches(0)).detach())
    learned[..., 0, 3] = 20.0
    assert float(built.loss(built.parts.batches(0)).detach()) != before


@pytest.mark.parametrize(("architecture", "shape"), [("two-tower", {"dropout": 0.5}), ("vae", {})])
def test_looking_for_gradients_leaves_no_trace(architecture, shape):
    built, twin = (ARCHITECTURES[architecture].training("adamw", 1, BATCH, **shape) for _ in range(2))
    for training in (built, twin):
        torch.manual_seed(0)
        if training is built:
            assert {n for n, _ in built.model.named_parameters()} == spots.gradients(built)
        assert all(p.grad is None for p in training.model.parameters())
        training.steps = 3
        training.prepare()
        training.run()
    assert built.losses == twin.losses
    for one, other in zip(built.model.state_dict().values(), twin.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_in_a_u_net_a_cut_loses_what_has_no_way_around_it_alone():
    fault = FAULTS["detached-block"]
    for seed in range(8):
        run = ARCHITECTURES["denoiser"].training("adamw", seed, BATCH)
        truth = fault.plant(run, 1.0)
        run.loss(run.parts.batches(0)).backward()
        lost = {n for n, p in run.model.named_parameters() if p.grad is None}
        assert lost == {*truth.sites} != set()
