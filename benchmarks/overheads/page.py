"""docs/measured.md, section by section: what was measured anew takes the place of what was."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import torch

HEAD = """# What recording costs

Written by `python benchmarks/overhead.py`; its docstrings say how it measures. One thread, fp32, AdamW,
gradients clipped, random tokens. Ratios are of the CPU time of the training thread to that of a bare
run of the same model in the same minutes; the time of other threads and processes (wandb's service,
TensorBoard's writer) is not in them. On a GPU the forward pass is under autocast to bfloat16, and the time
of the GPU is that between two events, what it waits for included. Brackets hold the quartiles.
"""
ON_GPU = " on a GPU"
ON_CPU = ("Small", "Medium", "Steps that are not recorded", "Memory")
ORDER = (*ON_CPU, *(f"{size}{ON_GPU}" for size in ("Small", "Medium", "Large")))


def machine(device: str = "cpu") -> str:
    """In general words: processor, cores, versions, and the day."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    software = f"torch {version('torch')}, Python {platform.python_version()}"
    if device == "cuda":
        processor = f"{torch.cuda.get_device_name()}, {processor}"
    return f"{processor}, {os.cpu_count()} cores, {software}, {date.today()}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned so that it is read on a terminal as well; the first column is of words."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        for row in (header, rule, *rows)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The median, and the quartiles in brackets."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, _, high = quantiles(values, method="inclusive")
    return f"{median(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def write(path: Path, sections: dict[str, str]) -> None:
    """Keeps the sections of the page that are not among these."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = [part.partition("\n") for part in old.split("\n## ")[1:]]
    kept = {title: body.strip("\n") for title, _, body in parts}
    both = {**kept, **sections}
    titles = [title for title in dict.fromkeys([*ORDER, *both]) if title in both]
    ordered = [f"## {title}\n\n{both[title]}\n" for title in titles]
    path.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")
