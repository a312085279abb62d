from __future__ import annotations

import math
import subprocess
import sys

import pytest

from stabdiag.core.errors import DamagedRun, StabdiagError
from stabdiag.store.directory import resolve_run
from stabdiag.store.reader import load

SCRIPT = """
import wandb
with wandb.init(project="p", dir=".", config={"api_key": "secret"}) as run:
    for step in range(400):
        run.log({"train/loss": 2 / (step + 1) if step != 350 else float("nan"), "model": {"lr": 0.5},
                 "train/global_step": 10 * step, "note": "x" * 60})
    run.log({"eval/loss": 1.5, "train/global_step": 4000})
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The folder that an offline run of wandb itself left."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("wandb-run")
    environment = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, check=True, timeout=120)
    (run,) = (folder / "wandb").glob("offline-run-*")
    return run


def test_an_offline_run_is_read_from_its_folder_or_those_around_it(offline):
    file = next(offline.glob("*.wandb"))
    assert file.stat().st_size > 3 * 32768
    assert resolve_run(offline) == resolve_run(offline.parent) == resolve_run(file) == file
    run = load(file)
    table = run.table("run.loss")
    assert table.steps.tolist() == list(range(0, 4000, 10))
    assert table.first()[:3].tolist() == pytest.approx([2.0, 1.0, 2 / 3])
    assert math.isnan(table.first()[350])
    assert run.table("run.nonfinite").first().sum() == 1
    assert run.table("evaluation.loss").steps.tolist() == [4000]
    assert 0 < run.kinds["run"].times[-1] - run.kinds["run"].times[0] < 600
    assert "secret" not in str(run)


def test_of_a_damaged_file_the_whole_records_are_read(offline, tmp_path):
    data = next(offline.glob("*.wandb")).read_bytes()
    path = tmp_path / "run-x.wandb"
    path.write_bytes(data[: len(data) // 2])
    torn = load(path)
    assert 50 < torn.table("run.loss").steps.size < 399
    assert not any("damaged" in note for note in torn.notes)
    broken = bytearray(data)
    broken[40_000:40_010] = bytes(10)
    path.write_bytes(broken)
    rest = load(path)
    assert 200 < rest.table("run.loss").steps.size < 400
    assert rest.table("run.loss").steps[-1] == 3990
    assert any("1 of its blocks" in note for note in rest.notes)


@pytest.mark.parametrize("content", [b"", b":W&B", b"garbage" * 20, b":W&B\xe1\xbe\x00" + b"\x07" * 40])
def test_a_file_that_is_none_of_wandbs_is_a_clear_error(tmp_path, content):
    pytest.importorskip("wandb")
    path = tmp_path / "run-x.wandb"
    path.write_bytes(content)
    with pytest.raises(DamagedRun, match="holds no numbers"):
        load(path)


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb.proto.wandb_internal_pb2", None)
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b":W&B\xe1\xbe\x00")
    with pytest.raises(StabdiagError) as error:
        load(path)
    assert error.value.hint == "pip install 'stabdiag[wandb]'"
