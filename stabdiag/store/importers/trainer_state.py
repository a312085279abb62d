"""`trainer_state.json`, which the Hugging Face Trainer saves with each checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stabdiag.store.importer import IMPORTERS, Importer, Log
from stabdiag.store.rows import add_rows

NAME = "trainer_state.json"
HISTORY = re.compile(r'"log_history"\s*:\s*\[')
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def _takes(path: Path) -> bool:
    return path.suffix == ".json" and (path.name == NAME or HISTORY.search(_text(path)) is not None)


def _claims(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / NAME] if NAME in names else []


def _joined(logs: Sequence[Path]) -> list[Path]:
    """Each checkpoint holds the whole history up to it: of an output folder the last one tells all."""
    last: dict[Path, tuple[int, Path]] = {}
    for log in logs:
        checkpoint = CHECKPOINT.fullmatch(log.parent.name)
        owner = log.parent.parent if checkpoint else log.parent
        reach = int(checkpoint[1]) if checkpoint else _steps(log)
        last[owner] = max(last.get(owner, (-1, log)), (reach, log))
    return [log for _, log in last.values()]


def _steps(path: Path) -> int:
    """How far a history reaches that lies in no checkpoint's folder."""
    found = re.findall(r'"global_step"\s*:\s*(\d{1,15})\b', _text(path))
    return int(found[-1]) if found else 0


def _read(path: Path) -> Log:
    log = Log()
    text = _text(path)
    try:
        document = json.loads(text)
        history = document.get("log_history", []) if isinstance(document, dict) else []
        history = history if isinstance(history, list) else []
    except (ValueError, RecursionError):
        history = list(_salvaged(text))
        log.notes.append(f"{path.name} is damaged: {len(history):,} entries of its history could be read")
    add_rows(log, [row for row in history if isinstance(row, dict)])
    log.count_from_zero()
    return log


def _salvaged(text: str) -> Iterator[Any]:
    """The entries of the history that are whole, of a file that was cut off."""
    found = HISTORY.search(text)
    at, decoder = found.end() if found else len(text), json.JSONDecoder()
    while (at := text.find("{", at)) >= 0:
        try:
            entry, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield entry


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


IMPORTERS.add(Importer("trainer-state", "Hugging Face trainer_state.json", _claims, _takes, _read, _joined))
