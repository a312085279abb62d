"""What it costs to read a million numbers out of the logs of other tools, and to report on them.

    python benchmarks/foreign.py [EVENTS]

Each log holds the loss, the gradient norm, the learning rate and an accuracy of EVENTS / 4 steps (default: a
million numbers), with a spike of the loss that the report has to name. Each command runs in a process of its
own, imports included; shown are its seconds of wall and CPU time, and its peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Numbers = dict[str, np.ndarray]


def training(steps: int) -> Numbers:
    noise = np.random.default_rng(0)
    at = np.arange(steps) / steps
    loss = 2.5 + 5 * np.exp(-8 * at) + 0.03 * noise.normal(size=steps)
    loss[int(0.6 * steps) :][:12] += np.linspace(2, 0.3, 12)
    return {
        "train/loss": loss,
        "train/grad_norm": np.exp(0.2 * noise.normal(size=steps)),
        "train/learning_rate": 5e-4 * np.minimum(at / 0.05, (1 + np.cos(np.pi * at)) / 2),
        "train/accuracy": at,
    }


def rows(numbers: Numbers) -> list[dict[str, float]]:
    columns = {name: values.tolist() for name, values in numbers.items()}
    return [
        {"step": step, **dict(zip(columns, row, strict=True))}
        for step, row in enumerate(zip(*columns.values(), strict=True))
    ]


def write_events(folder: Path, numbers: Numbers) -> None:
    """One event a number, as torch's SummaryWriter and the Trainer write them."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), max_queue_size=1000)
    for row in rows(numbers):
        step = row.pop("step")
        for tag, value in row.items():
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(step=int(step), wall_time=1e9 + step, summary=summary))
    writer.close()


def write_trainer_state(folder: Path, numbers: Numbers) -> None:
    history = [{name.rpartition("/")[2]: value for name, value in row.items()} for row in rows(numbers)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}, indent=2))


def write_jsonl(folder: Path, numbers: Numbers) -> None:
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows(numbers)))


def write_csv(folder: Path, numbers: Numbers) -> None:
    lines = [",".join(map(str, row.values())) for row in rows(numbers)]
    (folder / "metrics.csv").write_text("\n".join([f"step,{','.join(numbers)}", *lines]))


def write_wandb(folder: Path, numbers: Numbers) -> None:
    script = (
        "import json, sys, wandb\n"
        "with wandb.init(project='p', dir=sys.argv[1]) as run:\n"
        "    for line in sys.stdin:\n"
        "        run.log(json.loads(line))\n"
    )
    quiet = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    lines = "".join(f"{json.dumps(row)}\n" for row in rows(numbers))
    subprocess.run([sys.executable, "-c", script, str(folder)], input=lines, text=True, env=quiet, check=True)


FORMATS: dict[str, Callable[[Path, Numbers], None]] = {
    "TensorBoard event file": write_events,
    "trainer_state.json": write_trainer_state,
    "JSON lines": write_jsonl,
    "CSV": write_csv,
    "wandb": write_wandb,
}


def measured(words: list[str], cwd: Path) -> tuple[float, float, float, str]:
    """Seconds of wall and CPU time, peak MiB, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, float(done.stdout.splitlines()[-1]), done.stdout


# Not ru_maxrss, which a process takes over from the one that started it.
PEAK = "print(next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmHWM')))"
LOAD = f"import stabdiag; stabdiag.load('log'); {PEAK}"
REPORT = f"import stabdiag.cli as c\ntry: c.main(['report', 'log'])\nexcept SystemExit: {PEAK}"


def main(events: int) -> None:
    numbers = training(events // 4)
    print(f"{events:,} numbers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| log | MiB | load, s (CPU) | peak MiB | report, s (CPU) | peak MiB | names the spike |")
    print("|---|---|---|---|---|---|---|")
    for name, write in FORMATS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "log"
            folder.mkdir()
            write(folder, numbers)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
            load = measured([sys.executable, "-c", LOAD], folder.parent)
            report = measured([sys.executable, "-c", REPORT], folder.parent)
            named = "yes" if "the loss jumps and comes back" in " ".join(report[3].split()) else "NO"
            print(
                f"| {name} | {size:.0f} | {load[0]:.1f} ({load[1]:.1f}) | {load[2]:.0f} "
                f"| {report[0]:.1f} ({report[1]:.1f}) | {report[2]:.0f} | {named} |",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
