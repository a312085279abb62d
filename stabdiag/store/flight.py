"""The flight record: the last steps of a process, at full rate, with all that computing one again needs.

    flight/rank-0/steps.npy             while the process lives, and when it died without warning
    flight/rank-0/about.json
    flight/rank-0/step-412/             what these held when something happened at step 412
        steps.npy  about.json
        batch-411.safetensors           what the model was called with in a step, with `--keep-batches`

`steps.npy` is a numpy array of 64 rows, one a step, in a ring: step s has place s modulo 64. Its fields:

    step, check      -1 where there is none yet; a row counts where both are equal
    time             seconds since the epoch
    loss, lr, grad_norm
    grad             norm of each gradient, in the order of `parameters` in about.json
    fingerprint      of each of the `inputs`; `min` and `max` of 4,096 elements or more of them
    torch, cuda      random state at the first call of the model, of the host and of each device
    python, numpy    keys and position of the Mersenne Twister; all zero where they were not kept
    python_gauss, numpy_gauss       the normal number that they hold back, NaN where none

NaN is "not measured". A row is one write, so a record outlives any death of its process; numpy opens it
with `allow_pickle=False`, a reader here takes any prefix of it. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.errors import DamagedRun
from stabdiag.core.event import Event
from stabdiag.store.events import EventLog
from stabdiag.store.files import read, replace

SLOTS = 64
SCHEMA = "stabdiag.flight/1"
STEPS, ABOUT, WANTED = "steps.npy", "about.json", "wanted"
OF_INPUTS = ("fingerprint", "min", "max")
TWISTER = 625
BATCH = re.compile(r"batch-(\d+)\.safetensors")
Rows = NDArray[np.void]


def row_type(parameters: int, inputs: int, torch_random: int, cuda: tuple[int, int]) -> np.dtype[np.void]:
    """`torch_random` bytes of the host's state, `cuda` devices and bytes of each."""
    numbers = [(name, "<f4") for name in ("loss", "lr", "grad_norm")]
    of_inputs = [(name, "<f4", (inputs,)) for name in OF_INPUTS]
    states: list[Any] = [("torch", "u1", (torch_random,)), ("cuda", "u1", cuda)]
    for name in ("python", "numpy"):
        states += [(name, "<u4", (TWISTER,)), (f"{name}_gauss", "<f8")]
    head: list[Any] = [("step", "<i8"), ("time", "<f8"), *numbers, ("grad", "<f4", (parameters,))]
    return np.dtype([*head, *of_inputs, *states, ("check", "<i8")])


def in_order(rows: Rows) -> Rows:
    """The rows that are whole, by step."""
    whole = rows[(rows["step"] >= 0) & (rows["step"] == rows["check"])]
    ordered: Rows = whole[np.argsort(whole["step"], kind="stable")]
    return ordered


@dataclass(frozen=True)
class FlightRecord:
    """`step` is that at which something happened, None of a process that died without warning."""

    path: Path
    rank: int
    step: int | None
    because: str
    rows: Rows
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        return [int(step) for step in self.rows["step"]]

    @property
    def batches(self) -> dict[int, Path]:
        """The files of the batches that were kept, by step."""
        found = ((BATCH.fullmatch(path.name), path) for path in self.path.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in found if match))


def flight_records(run_dir: Path) -> list[FlightRecord]:
    """Those that can be read, the earliest first; of a rank first those that were written for a reason."""
    records = list(_records(run_dir))
    return sorted(records, key=lambda r: (r.step is None, r.step or 0, r.rank))


def _records(run_dir: Path) -> Iterator[FlightRecord]:
    for folder in run_dir.glob("flight/rank-*"):
        for path in (folder, *folder.glob("step-*")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, DamagedRun):
                record = read_record(path, int(folder.name.removeprefix("rank-")))
                if len(record.rows):
                    yield record


def read_record(path: Path, rank: int) -> FlightRecord:
    """Raises ValueError, TypeError, KeyError or DamagedRun for what is no such record, OSError."""
    about = read(path / ABOUT, SCHEMA)
    step = about.get("step")
    return FlightRecord(
        path,
        rank,
        None if step is None else int(step),
        str(about.get("because", "")),
        in_order(read_rows(path / STEPS)),
        tuple(map(str, about["parameters"])),
        tuple(map(str, about["inputs"])),
        about,
    )


def read_rows(path: Path) -> Rows:
    """The rows that are in the file, however much of it there is. ValueError where it holds none, OSError."""
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path.name} is of another version")
        _, _, kind = np.lib.format.read_array_header_1_0(file)
        if not _is_row_type(kind):
            raise ValueError(f"{path.name} holds no steps")
        data = file.read(SLOTS * kind.itemsize)
    return np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)


def _is_row_type(kind: np.dtype[Any]) -> bool:
    try:
        parameters, inputs, host = (kind[name].shape[0] for name in ("grad", "min", "torch"))
        devices, each = kind["cuda"].shape
        return bool(kind == row_type(parameters, inputs, host, (devices, each)))
    except (LookupError, ValueError, TypeError):
        return False


def ask_for_record(run_dir: Path, because: str) -> None:
    """Has the processes of a run write their records, within a second or a step. Raises OSError."""
    folder = run_dir / "flight"
    if folder.is_dir():
        replace(folder / WANTED, {"schema": SCHEMA, "because": because})


def wanted(flight: Path) -> str:
    """Why somebody wants the record, empty where nobody does; `flight` is the folder of all processes."""
    try:
        return str(read(flight / WANTED, SCHEMA)["because"])
    except FileNotFoundError:
        return ""


def settle(run_dir: Path, died: str, critical: str) -> bool:
    """Whether rings are records now. A run has ended: what only mattered while it went on is taken away.

    A ring stays where its process `died` after the last record that it wrote, or where something is
    `critical` of which it wrote none; both are reasons, or empty.
    """
    try:
        kept = _kept(run_dir, died, critical)
        rings = [path.parent for path in run_dir.glob(f"flight/rank-*/{STEPS}") if path.parent not in kept]
        for path in (
            run_dir / "flight" / WANTED,
            *(ring / name for ring in rings for name in (STEPS, ABOUT)),
        ):
            path.unlink(missing_ok=True)
        for folder in (*rings, run_dir / "flight"):
            with contextlib.suppress(OSError):  # that hold something else
                folder.rmdir()
    except OSError:  # a full disk, or one that may not be written to: then all stays as it is
        return False
    return bool(kept)


def _kept(run_dir: Path, died: str, critical: str) -> set[Path]:
    records = flight_records(run_dir)
    kept = set()
    for ring in (record for record in records if record.step is None):
        written = [r.step for r in records if r.rank == ring.rank and r.step is not None]
        last = ring.steps[-1]
        because = died if last > max(written, default=-1) else ""
        because = because or ("" if written else critical)
        if because:
            kept.add(ring.path)
            data = {"because": because, "record": ring.path.name, "first": ring.steps[0], "batches": []}
            EventLog(run_dir).append(Event("flight", time.time(), last, ring.rank, data))
    return kept
