"""Every fault does something in every architecture that has the traits it needs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

import pytest
import torch

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.fault import FAULTS
from stabdiag.zoo.optimizer import OPTIMIZERS

WHERE = ("llama", "vit", "denoiser", "ssm", "two-tower", "graph")
STEPS, BATCH = 6, 2
WAITS = {"stalled-loader"}
LEAVE_THE_WEIGHTS = {"memory-leak", "batchnorm-lag"}
"""These harm the machine, or evaluations."""
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
    places = {*after, *(n for n, _ in run.model.named_modules())}
    for glob in truth.sites:
        assert any(fnmatchcase(place, glob) for place in places), glob
    twin = healthy_weights(architecture, optimizer, name if fault.shape or fault.batch else "lr-too-high")
    same = [n for n, w in after.items() if n in twin and torch.equal(w, twin[n])]
    assert (len(same) == len(twin)) == (name in LEAVE_THE_WEIGHTS)


@pytest.mark.parametrize("architecture", WHERE)
def test_queries_are_found_in_every_block_that_is_said_to_have_attention(architecture):
    from stabdiag.zoo import spots

    entry = ARCHITECTURES[architecture]
    built = entry.training("adamw", 1, BATCH)
    if "attention" in entry.traits:
        for block in built.parts.blocks:
            owner, weight = spots.queries(built, block)
            assert owner.startswith(block)
            assert weight.any()
    if "head" in entry.traits:
        name, _ = spots.head(built)
        assert not any(name.startswith(block) for block in built.parts.blocks)
