"""TensorBoard event files, whoever wrote them: torch, Lightning, Keras, JAX, Megatron."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stabdiag.store.importer import IMPORTERS, Importer, Log
from stabdiag.store.naming import role_of

MARK = "tfevents"
OF_TRAINER = {"args/text_summary", "train/epoch"}
"""Tags that Hugging Face's Trainer alone writes together; it counts the steps that are done."""
FRAME = 16
"""Bytes around each record: its length, and two checksums."""


def _takes(path: Path) -> bool:
    return MARK in path.name


def _claims(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder] if any(MARK in name for name in names) else []


def _joined(logs: Sequence[Path]) -> list[Path]:
    """Without the parts of others, as the folder around them stands for them."""
    parts = {part: folder for folder in {log.parent for log in logs} for part in _parts(folder)}
    return list(dict.fromkeys(parts.get(log, log) for log in logs))


def _parts(folder: Path) -> list[Path]:
    """Folders in it that belong to one training with it: Keras writes `train/` and `validation/`, torch's
    `add_scalars` puts `loss_train/` and `loss_val/` beside its own events."""
    children = sorted(child for child in folder.iterdir() if child.is_dir() and _events(child))
    if _events(folder):
        return [child for child in children if role_of(child.name)]
    alone = [child for child in children if role_of(child.name, alone=True)]
    return alone if any(role_of(child.name) == "training" for child in alone) else []


def _events(folder: Path) -> list[Path]:
    """By name is by time: it holds the second at which the file was begun."""
    return sorted(child for child in folder.iterdir() if MARK in child.name and child.is_file())


def _read(path: Path) -> Log:
    log, others = Log(), set[str]()
    for prefix, file in _files(path):
        others |= _read_file(file, prefix, log)
    if others | log.scalars.keys() >= OF_TRAINER:
        log.count_from_zero()
    return log


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """The event files of a log, each with what is put before its tags."""
    if path.is_file():
        yield "", path
        return
    yield from (("", file) for file in _events(path))
    for part in _parts(path):
        yield from ((f"{part.name}/", file) for file in _events(part))


def _read_file(path: Path, prefix: str, log: Log) -> set[str]:
    """The tags of all that is no plain number."""
    from google.protobuf.message import DecodeError
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    whole, kinds = 0, dict[str, str]()
    # The raw loader: the others rewrite each event for the web page, which takes four times as long.
    for record in RawEventFileLoader(str(path)).Load():
        try:
            event = Event.FromString(record)
        except DecodeError:
            break
        whole += len(record) + FRAME
        step, time = event.step, event.wall_time
        for value in event.summary.value:
            number = _scalar(value, kinds)
            if number is not None:
                log.add(prefix + value.tag, step, number, time)
    rest = path.stat().st_size - whole
    if rest > 0:
        log.notes.append(f"{path.name} is damaged: {rest:,} of its bytes could not be read")
    return set(kinds)


def _scalar(value: Any, kinds: dict[str, str]) -> float | None:
    """The number of a summary, None where it is none; `kinds` keeps the plugin that a tag was first
    written for, which later ones leave out."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor"):
        return None
    kind = kinds.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
    return next(_numbers(value.tensor), None) if kind == "scalars" else None


def _numbers(tensor: Any) -> Iterator[float]:
    from tensorboard.util.tensor_util import make_ndarray

    try:
        yield from make_ndarray(tensor).ravel().astype(float)[:1].tolist()
    except (TypeError, ValueError):
        return


IMPORTERS.add(
    Importer("tensorboard", "TensorBoard event files", _claims, _takes, _read, _joined, precedence=1)
)
