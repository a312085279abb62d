"""One case in one process, or in as many as it has ranks: trains it, records it, and notes the truth."""

from __future__ import annotations

import json
import shutil
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path

import torch

import stabdiag
from stabdiag.zoo.case import Case
from stabdiag.zoo.world import in_world

TRUTH = "truth.json"
"""Beside the recording: the case and what was planted, written when the training has ended."""


def record(case: Case, folder: Path) -> None:
    """Makes `folder/<name of the case>`, a run directory, in the place of an unfinished one."""
    torch.set_num_threads(1)
    shutil.rmtree(folder / case.name, ignore_errors=True)
    if case.world == 1:
        train(case, folder, 0)
        return
    with tempfile.TemporaryDirectory() as meeting:
        in_world(case.world, Path(meeting, "store").absolute(), lambda rank: train(case, folder, rank))


def train(case: Case, folder: Path, rank: int) -> None:
    training, planted = case.prepared(rank)
    failure = ""
    with stabdiag.watch(
        training.model, training.optimizers, log_dir=folder, name=case.name, every=case.every
    ) as watch:
        try:
            training.run()
        except Exception:
            failure = traceback.format_exc()
            watch.close(exit_status=1)
    if rank == 0:
        truth = {"case": case.to_json(), "planted": asdict(planted) if planted else None, "failure": failure}
        (folder / case.name / TRUTH).write_text(json.dumps(truth, indent=1), encoding="utf-8")
