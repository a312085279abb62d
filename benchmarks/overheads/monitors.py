"""What may look on while a model trains.

A monitor is a context manager, entered before the first step. It yields a function that is called after
each optimizer step, before the gradients are cleared, with the number of the step and the loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from overheads.training import Training

AfterStep = Callable[[int, torch.Tensor], None]


class Monitor(NamedTuple):
    """`tier` is that of the steps that count, where it is stabdiag with a fixed one."""

    label: str
    enter: Callable[[Training, Path], AbstractContextManager[AfterStep]]
    tier: int | None = None


def nothing(_step: int, _loss: torch.Tensor) -> None:
    pass


@contextmanager
def bare(_training: Training, _folder: Path) -> Iterator[AfterStep]:
    yield nothing


@contextmanager
def stabdiag(training: Training, folder: Path, **cadence: Any) -> Iterator[AfterStep]:
    import stabdiag

    with stabdiag.watch(training.model, training.optimizer, log_dir=folder, name="run", **cadence):
        yield nothing


@contextmanager
def wandb_watch(training: Training, folder: Path) -> Iterator[AfterStep]:
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    run = wandb.init(project="overhead", dir=folder, mode="offline")
    wandb.watch(training.model, log="all", log_freq=1)
    yield lambda _step, loss: wandb.log({"loss": loss.item()})
    run.finish()


@contextmanager
def underflow_overflow(training: Training, _folder: Path) -> Iterator[AfterStep]:
    from transformers.debug_utils import DebugUnderflowOverflow

    DebugUnderflowOverflow(training.model)
    yield nothing


@contextmanager
def anomaly(_training: Training, _folder: Path) -> Iterator[AfterStep]:
    with torch.autograd.detect_anomaly():
        yield nothing


@contextmanager
def histograms(training: Training, folder: Path) -> Iterator[AfterStep]:
    from torch.utils.tensorboard import SummaryWriter

    def write(step: int, _loss: torch.Tensor) -> None:
        for name, parameter in training.model.named_parameters():
            writer.add_histogram(name, parameter, step)
            if parameter.grad is not None:
                writer.add_histogram(f"{name}.grad", parameter.grad, step)

    with SummaryWriter(folder) as writer:
        yield write


@contextmanager
def naive(training: Training, _folder: Path) -> Iterator[AfterStep]:
    seen: dict[str, list[float]] = {}

    def look(name: str, value: Any) -> None:
        for tensor in value if isinstance(value, tuple) else (value,):
            if isinstance(tensor, torch.Tensor):
                t = tensor.detach()
                seen[name] = [t.mean().item(), t.std().item(), t.abs().max().item(), t.norm().item()]

    def forward(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        look(name, output)

    def backward(name: str, _module: nn.Module, _inputs: Any, gradients: Any) -> None:
        look(f"{name}.grad", gradients)

    def parameters(_step: int, _loss: torch.Tensor) -> None:
        for name, parameter in training.model.named_parameters():
            look(name, parameter)
            look(f"{name}.grad", parameter.grad)

    for name, module in training.model.named_modules():
        module.register_forward_hook(partial(forward, name))
        module.register_full_backward_hook(partial(backward, name))
    yield parameters


NEVER = 10**9
BUDGET = "stabdiag"
IDLE = "stabdiag-idle"
MONITORS = {
    "bare": Monitor("bare, again (control)", bare),
    BUDGET: Monitor("stabdiag, budget 2 %", partial(stabdiag, budget="2%")),
    "stabdiag-fast": Monitor("stabdiag, fast tier at every step", partial(stabdiag, every=NEVER), 1),
    "stabdiag-standard": Monitor("stabdiag, standard tier at every step", partial(stabdiag, every=1), 2),
    IDLE: Monitor("stabdiag, steps that are not recorded", partial(stabdiag, budget=1 / NEVER), 0),
    "wandb": Monitor('`wandb.watch(log="all", log_freq=1)`, offline', wandb_watch),
    "underflow": Monitor("Hugging Face `DebugUnderflowOverflow`", underflow_overflow),
    "anomaly": Monitor("`torch.autograd.detect_anomaly`", anomaly),
    "tensorboard": Monitor("TensorBoard histograms of parameters and gradients", histograms),
    "naive": Monitor("hooks with `.item()`: mean, std, absmax, norm of all", naive),
}
