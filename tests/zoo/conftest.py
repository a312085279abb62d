"""Small trainings in which a fault or a control can be tested in a moment."""

from __future__ import annotations

import pytest
import torch

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.optimizer import OPTIMIZERS

CHEAP = ("regression", "mlp", "gan", "vae", "rnn", "conv", "lstm", "gpt", "experts")
STEPS = 20


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def setting(entry):
    """The cheapest architecture and an optimizer that fit."""
    return next(
        (architecture, optimizer)
        for architecture in CHEAP
        for optimizer in ("adamw", "adamw-999", "sgd", "lion")
        if entry.fits(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    )


def sound_training(entry, steps=STEPS, seed=3, **broken):
    """The training in which `entry` is planted, without it."""
    architecture, optimizer = setting(entry)
    return ARCHITECTURES[architecture].training(optimizer, seed, entry.batch, steps, **entry.shape, **broken)


def planted_training(fault, dose=None, steps=STEPS):
    """The same with the fault, its strongest dose by default, and the truth."""
    training = sound_training(fault, steps, **fault.broken)
    truth = fault.plant(training, fault.doses[-1] if dose is None else dose)
    training.prepare()
    return training, truth


@pytest.fixture
def sound():
    return sound_training


@pytest.fixture
def planted():
    return planted_training
