"""One case in one process: `python -m stabdiag.zoo.worker CASE FOLDER` trains and records it."""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

import torch

import stabdiag
from stabdiag.zoo.case import Case

TRUTH = "truth.json"
"""Beside the recording: the case and what was planted, written when the training has ended."""


def record(case: Case, folder: Path) -> None:
    """Makes `folder/<name of the case>`, a run directory, in the place of an unfinished one."""
    torch.set_num_threads(1)
    path = folder / case.name
    shutil.rmtree(path, ignore_errors=True)
    training, planted = case.prepared()
    failure = ""
    with stabdiag.watch(
        training.model, training.optimizers, log_dir=folder, name=case.name, every=case.every
    ) as watch:
        try:
            training.run()
        except Exception:
            failure = traceback.format_exc()
            watch.close(exit_status=1)
    truth = {"case": case.to_json(), "planted": asdict(planted) if planted else None, "failure": failure}
    (path / TRUTH).write_text(json.dumps(truth, indent=1))


if __name__ == "__main__":
    record(Case.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]))
