"""findings.json: the last diagnosis of a run, in the report's schema."""

from __future__ import annotations

from pathlib import Path

from stabdiag.core.diagnosis import SCHEMA, Diagnosis
from stabdiag.core.errors import DamagedRun
from stabdiag.store.files import read, replace

NAME = "findings.json"


def write_findings(run_dir: Path, diagnosis: Diagnosis) -> None:
    """Whoever reads meanwhile sees the old diagnosis or the new. Raises OSError."""
    replace(run_dir / NAME, diagnosis.to_json())


def read_findings(run_dir: Path) -> Diagnosis:
    """Raises DamagedRun where there is none that can be read."""
    hint = "`stabdiag report` makes a new one"
    path = run_dir / NAME
    try:
        return Diagnosis.from_json(read(path, SCHEMA))
    except FileNotFoundError:
        raise DamagedRun(f"{run_dir} was not diagnosed yet", hint) from None
    except OSError as error:
        raise DamagedRun(f"{path} cannot be read: {error.strerror}", hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRun(f"{path} is damaged", hint) from error
