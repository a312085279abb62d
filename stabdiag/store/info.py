"""run.json: what is known of a run as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from stabdiag.core.errors import StabdiagError
from stabdiag.core.redaction import redacted_command
from stabdiag.core.run import RunInfo
from stabdiag.store import files
from stabdiag.store.files import read

NAME = "run.json"
SCHEMA = "stabdiag.run/1"


def write_info(run_dir: Path, info: RunInfo) -> None:
    """Whoever reads meanwhile sees the old file or the new. Secrets in the command are left out.

    Raises StabdiagError where the folder is full or not writable.
    """
    info = replace(info, command=redacted_command(info.command))
    try:
        files.replace(run_dir / NAME, {"schema": SCHEMA, **asdict(info)})
    except OSError as error:
        raise StabdiagError(
            f"{run_dir / NAME} cannot be written: {error.strerror}", "--log-dir takes another folder"
        ) from error


def read_info(run_dir: Path) -> tuple[RunInfo, str]:
    """What run.json says, nothing where it is yet to come; and a note, empty unless it is damaged.

    Raises DamagedRun for a newer schema, OSError.
    """
    try:
        return _info(read(run_dir / NAME, SCHEMA)), ""
    except FileNotFoundError:
        return RunInfo(), ""
    except (ValueError, TypeError):
        return RunInfo(), f"{NAME} is damaged"


def _info(record: Mapping[str, Any]) -> RunInfo:
    """Ignores keys that it does not know."""
    known = {field.name: record[field.name] for field in fields(RunInfo) if field.name in record}
    known["command"] = tuple(map(str, known.get("command", ())))
    known["world_size"] = int(known.get("world_size", 1))
    return RunInfo(**known)
