"""What a report costs: seconds and memory to write it, bytes of the page, and seconds to its first paint.

    python benchmarks/page.py [--folder FOLDER] [VALUES]...

A run on disk has 600 sites of every kind, recorded at all of 10,000 steps, and one for each of VALUES as
many steps as make so many values. It diverges in its last tenth, where one site turns non-finite. The
report is written by `stabdiag report` in a process of its own, the page opened in the machine's Chromium,
where there is one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stabdiag.core.run import RunInfo
from stabdiag.core.site import Site
from stabdiag.store.info import write_info
from stabdiag.store.writer import RankWriter

SITES, STEPS = 600, 10_000
TABLE = 997
"""Rows of noise, which come again and again."""
TYPES = ("Linear", "LayerNorm", "ReLU", "Linear", "Embedding", "Conv2d")
KINDS = {
    "output": ("absmax", "rms", "mean"),
    "grad": ("norm",),
    "weight": ("norm",),
    "update": ("ratio",),
    "optimizer": ("rms", "eps_share"),
    "attention": ("entropy_ratio", "max_logit"),
}
SCALE = {"ratio": 1e-3, "eps_share": 0.01, "entropy_ratio": 0.5}
WIDTH = SITES * sum(len(statistics) + 1 for statistics in KINDS.values())


def sites(kind: str) -> list[Site]:
    suffix = ".weight" if kind in ("grad", "weight", "update", "optimizer") else ""
    names = (f"blocks.{i // 6}.part{i % 6}{suffix}" for i in range(SITES))
    return [Site(kind, name, TYPES[i % 6], (64, 64), "float32", i) for i, name in enumerate(names)]


def record(run_dir: Path, steps: int) -> None:
    noise = np.random.default_rng(0)
    table = np.exp(0.1 * noise.standard_normal((TABLE, SITES), dtype=np.float32))
    named = {kind: sites(kind) for kind in KINDS}
    run_dir.mkdir()
    write_info(run_dir, RunInfo(("python", "train.py"), started=0.0, ended=600.0, exit_status=0))
    writer, run = RankWriter(run_dir, 0), [Site("run", "run", order=0)]
    onset, end = steps * 9 // 10, steps * 99 // 100
    for step in range(steps):
        growth = np.float32(np.exp(np.clip((step - onset) / (0.01 * steps), 0, 7)))
        spread = growth ** np.linspace(0, 1, SITES, dtype=np.float32)
        for number, (kind, statistics) in enumerate(KINDS.items()):
            row = table[(step * 31 + number * 7) % TABLE] * spread
            nonfinite = np.zeros(SITES, np.float32)
            if step >= end:
                row[-1], nonfinite[-1] = np.nan, 1.0
            columns = {name: row * np.float32(SCALE.get(name, 1.0)) for name in statistics}
            writer.write(kind, step, float(step), named[kind], {**columns, "nonfinite": nonfinite})
        loss = 2 + 3 * np.exp(-10 * step / steps) + 0.2 * np.log(growth) + 0.05 * noise.standard_normal()
        values = {"loss": loss, "lr": 3e-4, "grad_norm": growth, "nonfinite": 0.0, "step_time": 0.06}
        writer.write("run", step, float(step), run, {n: np.array([v], np.float32) for n, v in values.items()})
    writer.close()


class Cost(NamedTuple):
    """Memory is the peak of the process's own, and that of the mapped files beside it, in GiB."""

    seconds: float
    cpu: float
    own: float
    mapped: float


def report(run_dir: Path) -> Cost:
    began, before = time.perf_counter(), os.times()
    child = subprocess.Popen([sys.executable, "-m", "stabdiag", "report", run_dir, "--format", "html"])
    own = mapped = 0.0
    while child.poll() is None:
        status = Path(f"/proc/{child.pid}/status").read_text()
        own = max(own, _gibibytes(status, "RssAnon"))
        mapped = max(mapped, _gibibytes(status, "RssFile"))
        time.sleep(0.02)
    if child.returncode:
        raise SystemExit(f"the report of {run_dir} failed")
    seconds, after = time.perf_counter() - began, os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Cost(seconds, cpu, own, mapped)


def _gibibytes(status: str, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 2**20 if found else 0.0


def first_paint(page: Path) -> tuple[float, float] | None:
    """Seconds until something is painted, and until all of the document is read; None without a Chromium."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        return None
    from playwright.sync_api import sync_playwright

    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    loaded = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        shown = chromium.new_page(viewport={"width": 1280, "height": 900})
        shown.goto(page.as_uri())
        shown.wait_for_function(paint.replace(".startTime", " !== undefined"))
        times = shown.evaluate(paint), shown.evaluate(loaded)
        chromium.close()
    return times[0] / 1000, times[1] / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("values", type=float, nargs="*", help="such as 1e7 1e9")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    for steps in (STEPS, *(round(values / WIDTH) for values in asked.values)):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            run_dir = Path(folder) / "run"
            record(run_dir, steps)
            cost = report(run_dir)
            page = run_dir / "report.html"
            print(f"{steps:,} steps, {steps * WIDTH / 1e6:,.0f} million values, {SITES} sites a kind")
            print(f"  report {cost.seconds:.1f} s ({cost.cpu:.1f} s of CPU)")
            print(f"  memory {cost.own:.2f} GiB, and {cost.mapped:.2f} GiB of mapped files")
            print(f"  page {page.stat().st_size / 1e6:.2f} MB")
            painted = first_paint(page)
            if painted:
                print(f"  first paint {painted[0]:.2f} s, document read {painted[1]:.2f} s")


if __name__ == "__main__":
    main()
