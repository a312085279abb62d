"""Trains the language model on text: `python -m stabdiag.reference.train --help`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stabdiag.reference.data import Batches, Vocabulary, batches, read
from stabdiag.reference.model import GPT, Config


@dataclass(frozen=True)
class Options(Config):
    """A training run: the shape of its model, and how it is trained.

    `batch` sequences times `accumulate` make one step. `vocabulary` above 256 merges byte pairs.
    The defaults train for about a minute on two cores.
    """

    text: str = ""
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    steps: int = 300
    batch: int = 16
    accumulate: int = 1
    lr: float = 2e-3
    final_lr: float = 2e-4
    warmup: int = 20
    weight_decay: float = 0.1
    clip: float = 1.0
    bf16: bool = False
    evaluate_every: int = 100
    evaluation_batches: int = 5
    log_every: int = 10
    checkpoint: str = ""
    checkpoint_every: int = 100
    resume: str = ""


HELP = {
    "text": "file or folder to train on (default: the text of Python's standard library)",
    "accumulate": "micro-batches a step",
    "tied": "share the matrix of the token embedding with the head",
    "warmup": "steps in which the learning rate rises to --lr",
    "final_lr": "learning rate at the last step, at the end of a cosine",
    "clip": "largest global gradient norm, 0 for no clipping",
    "bf16": "run the forward pass under bfloat16 autocast",
    "evaluate_every": "steps between evaluations, 0 for none",
    "checkpoint": "file to save model, optimizer, step and random state to",
    "resume": "checkpoint to continue from",
}


def build_data(options: Options) -> tuple[Options, Batches, Batches]:
    """The options with the vocabulary's true size, and the batches to train and to evaluate on."""
    text = read(options.text)
    vocabulary = Vocabulary.trained(text, options.vocabulary)
    tokens = vocabulary.encode(text)
    split = len(tokens) * 9 // 10
    shape = (options.batch, options.context, options.seed)
    training, held_out = batches(tokens[:split], *shape), batches(tokens[split:], *shape)
    return replace(options, vocabulary=len(vocabulary)), training, held_out


def build_model(options: Options) -> GPT:
    torch.manual_seed(options.seed)
    return GPT(options).to(options.device)


def build_optimizer(model: torch.nn.Module, options: Options) -> torch.optim.AdamW:
    """AdamW that decays matrices only: to pull a bias or a norm's gain to zero would regularize nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95))


def learning_rate(step: int, options: Options) -> float:
    """Linear warm-up, then half a cosine down to `final_lr` at the last step."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    progress = (step - options.warmup) / max(1, options.steps - 1 - options.warmup)
    return options.final_lr + (options.lr - options.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def loss_of(model: torch.nn.Module, inputs: Tensor, targets: Tensor, options: Options) -> Tensor:
    """Mean cross-entropy of the next token, in nats."""
    device = torch.device(options.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
        logits = model(inputs.to(device))
    # In float32 whatever the forward pass ran in: a sum of exponentials needs the digits.
    return F.cross_entropy(logits.float().flatten(0, 1), targets.to(device).flatten())


@torch.no_grad()
def evaluate(model: torch.nn.Module, held_out: Batches, options: Options) -> float:
    """The mean loss over the first held-out batches, always the same ones."""
    model.eval()
    losses = [loss_of(model, *held_out(i), options) for i in range(options.evaluation_batches)]
    model.train()
    return float(torch.stack(losses).mean())


def save(path: str, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state: dict[str, Any] = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["cuda_random"] = torch.cuda.get_rng_state()
    partial = Path(f"{path}.partial")
    torch.save(state, partial)
    partial.replace(path)  # a crash while saving leaves the last good checkpoint


def load(path: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restores what `save` wrote, and gives the step to go on with."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if "cuda_random" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_random"])
    return int(state["step"])


def saved_step(path: str) -> int:
    """The step to go on with from a checkpoint. Raises OSError."""
    return int(torch.load(path, map_location="cpu", weights_only=True)["step"])


def train(
    options: Options,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    held_out: Batches | None = None,
    steps: range | None = None,
) -> Tensor:
    """Trains `model` in place and gives the loss of each step that was run, float32 [steps].

    Without `steps` it begins at the start, or where the checkpoint to resume from was written; with them,
    the model and the optimizer are those of before the first of them.
    """
    if steps is None:
        steps = range(load(options.resume, model, optimizer) if options.resume else 0, options.steps)
    progress = Progress(options, steps.start)
    losses = []
    model.train()
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options)
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=options.device)
        for micro in range(options.accumulate):
            inputs, targets = batches(step * options.accumulate + micro)
            # A mean of means is the mean of the whole batch only if each is divided by their number.
            loss = loss_of(model, inputs, targets, options) / options.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if options.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        losses.append(total)

        done = step + 1
        if done % options.log_every == 0 or done == options.steps:
            progress.show(done, float(total))
        if held_out and options.evaluate_every and (done % options.evaluate_every == 0):
            progress.say(f"step {done}: held-out loss {evaluate(model, held_out, options):.3f}")
        if options.checkpoint and (done % options.checkpoint_every == 0 or done == options.steps):
            save(options.checkpoint, done, model, optimizer)
    progress.close()
    return torch.stack(losses).cpu() if losses else torch.empty(0)


class Progress:
    """One line that rewrites itself on a terminal, plain lines elsewhere."""

    def __init__(self, options: Options, first: int) -> None:
        self.options = options
        self.first = first
        self.begun = time.perf_counter()
        self.terminal = sys.stdout.isatty()

    def show(self, done: int, loss: float) -> None:
        options = self.options
        each = (time.perf_counter() - self.begun) / (done - self.first)
        rate = options.batch * options.context * options.accumulate / each
        left = each * (options.steps - done)
        line = f"step {done}/{options.steps}  loss {loss:.3f}  {rate:,.0f} tokens/s  {left:.0f} s left"
        if self.terminal:
            bar = "█" * (20 * done // options.steps)
            print(f"\r\x1b[K{bar:░<20}  {line}", end="", flush=True)
        else:
            print(line, flush=True)

    def say(self, line: str) -> None:
        print(f"\r\x1b[K{line}" if self.terminal else line, flush=True)

    def close(self) -> None:
        if self.terminal:
            print(flush=True)


def parse(arguments: Sequence[str] | None = None, prog: str | None = None, **defaults: Any) -> Options:
    """The options of a command line; `defaults` take the place of those of Options."""
    parser = argparse.ArgumentParser(prog=prog, description="Trains a small GPT on text.")
    for field in fields(Options):
        default = defaults.get(field.name, field.default)
        flag = "--" + field.name.replace("_", "-")
        help = f"{HELP.get(field.name, '')} (default: %(default)s)".strip()
        if isinstance(default, bool):
            parser.add_argument(flag, default=default, action=argparse.BooleanOptionalAction, help=help)
        else:
            parser.add_argument(flag, default=default, type=type(default), help=help)
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        options, training, held_out = build_data(options)
        model = build_model(options)
    except (OSError, ValueError) as error:
        sys.exit(f"train: {error}")
    optimizer = build_optimizer(model, options)
    train(options, model, optimizer, training, held_out)


if __name__ == "__main__":
    main()
