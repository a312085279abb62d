"""A run that is diagnosed while it is written ends with the findings of one that is diagnosed at its end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.finding import Severity
from stabdiag.core.run import KindData, Run, RunInfo
from stabdiag.store.events import EventLog
from stabdiag.store.follower import Follower
from stabdiag.store.info import write_info
from stabdiag.store.reader import load
from stabdiag.store.writer import RankWriter

EXAMPLES = [(s.id, s.fires[0]) for s in SIGNATURES]


def written(run: Run, run_dir: Path, looks: int):
    """Writes `run` into `run_dir` step by step, and pauses `looks` times on the way."""
    write_info(run_dir, RunInfo(command=("train.py",), world_size=run.info.world_size))
    for event in run.events:
        EventLog(run_dir).append(event)
    writer = RankWriter(run_dir, 0)
    for step in range(run.steps):
        for kind, data in run.kinds.items():
            for row in np.flatnonzero(data.steps == step):
                columns = {name: array[row] for name, array in data.values.items()}
                writer.write(kind, step, float(step), data.sites, columns)
        if step % max(run.steps // looks, 1) == 0:
            yield step
    writer.close()


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_looks_on_the_way_change_nothing_of_what_is_found_in_the_end(name, example, tmp_path):
    recorded = example(np.random.default_rng(0))
    follower = Follower(tmp_path)
    for _ in written(recorded, tmp_path, looks=6):
        diagnose(follower.refresh())
    live, after = diagnose(follower.refresh()), diagnose(load(tmp_path))
    assert live.to_json() == after.to_json()
    assert any(finding.signature == name for finding in after.findings)


@pytest.mark.parametrize("name", [s.id for s in SIGNATURES])
def test_a_near_miss_is_none_at_any_time(name):
    """What is told while training cannot be taken back."""
    for example in SIGNATURES[name].quiet:
        run = example(np.random.default_rng(0))
        for steps in sorted({*range(4, run.steps, max(run.steps // 12, 1)), run.steps}):
            found = [f for f in diagnose(run.window(0, steps - 1)).findings if f.signature == name]
            assert all(f.severity is Severity.info for f in found), (example.__name__, steps)


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_a_damaged_recording_still_has_a_diagnosis(name, example):
    """With gaps, infinities, few steps, and statistics that are missing, down to the incidents."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        run = example(rng)
        kinds = {}
        for kind, data in run.kinds.items():
            kept = np.sort(rng.permutation(len(data.steps))[: rng.integers(1, len(data.steps) + 1)])
            names = [statistic for statistic in data.values if rng.random() < 0.8]
            values = {statistic: data.values[statistic][kept].copy() for statistic in names}
            for array in values.values():
                array[rng.random(array.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0])
            kinds[kind] = KindData(data.steps[kept], data.times[kept], data.sites, values)
        found = diagnose(Run(run.info, kinds, run.events))
        assert all("failed:" not in skipped.because for skipped in found.skipped)
        json.dumps(found.to_json())
