"""The report as JSON, and the schema that it keeps to."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import plain


def render_json(diagnosis: Diagnosis) -> str:
    """`--format json`: valid JSON (no NaN), equal bytes for equal diagnoses."""
    record = diagnosis.to_json()
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=_scalar) + "\n"


def _scalar(value: Any) -> Any:
    """A numpy scalar that a detector left in its finding; TypeError for anything else."""
    if isinstance(value, np.generic):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} is not JSON")


def report_schema() -> dict[str, Any]:
    """The contract, as a JSON Schema (draft 2020-12)."""
    text = resources.files("stabdiag.render").joinpath("report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
