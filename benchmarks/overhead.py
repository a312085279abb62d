"""What recording costs, as the ratio of CPU time a step to a bare run of the same model in the same minutes.

Three processes train the bundled model in turn, step by step: bare, bare again (the control: how far the
ratio strays by itself) and recorded. Times are of the training thread.

    python benchmarks/overhead.py [--steps 200] [--every 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from typing import IO, cast

import torch
from torch.nn import functional as F

SIZES = {"small": (4, 4, 128, 128, 16), "medium": (6, 6, 384, 256, 4)}  # layers, heads, width, context, batch


def train(size: str, every: int) -> None:
    """One step a line of standard input; answers with its seconds of CPU. `every` 0 records nothing."""
    from stabdiag.reference.model import GPT, Config

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers, heads, width, context, batch = SIZES[size]
    model = GPT(Config(vocabulary=256, context=context, layers=layers, heads=heads, width=width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    if every:
        import stabdiag

        stabdiag.watch(model, optimizer, log_dir=tempfile.mkdtemp(), every=every)
    for _ in sys.stdin:
        tokens = torch.randint(256, (batch, context + 1))
        start = time.thread_time()
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(time.thread_time() - start, flush=True)


def worker(size: str, every: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--worker", size, "--every", str(every)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def step(process: subprocess.Popen[str]) -> float:
    to, back = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    to.write("\n")
    to.flush()
    return float(back.readline())


def measure(size: str, steps: int, every: int) -> None:
    bare, again, recorded = worker(size, 0), worker(size, 0), worker(size, every)
    rows = [(step(bare), step(again), step(recorded)) for _ in range(steps)]
    for process in (bare, again, recorded):
        cast("IO[str]", process.stdin).close()
        process.wait()
    rows = rows[10:]  # the first steps are always recorded, and warm up
    control = statistics.median(b / a for a, b, _ in rows)
    whole = [r / a for number, (a, _, r) in enumerate(rows, 10) if number % every == 0]
    light = [r / a for number, (a, _, r) in enumerate(rows, 10) if number % every]
    every_step = (statistics.median(whole) + (every - 1) * statistics.median(light)) / every
    milliseconds = 1000 * statistics.median(a for a, _, _ in rows)
    print(
        f"{size:8} {milliseconds:8.1f} {control:9.3f} {statistics.median(whole):10.3f}"
        f" {statistics.median(light):8.3f} {every_step:8.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--worker", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train(options.worker, options.every)
        return
    print(f"{'model':8} {'bare ms':>8} {'bare/bare':>9} {'recorded':>10} {'others':>8} {'all':>8}")
    for size in SIZES:
        measure(size, options.steps if size == "small" else options.steps // 4, options.every)


if __name__ == "__main__":
    main()
