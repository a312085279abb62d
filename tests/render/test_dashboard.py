"""Dashboards: data that a user edits, so what is wrong with them is told with its line and a suggestion."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import stabdiag
from stabdiag.analysis.catalogue import CAUSES, SIGNATURES
from stabdiag.core.errors import StabdiagError
from stabdiag.core.synthetic import run_of
from stabdiag.render import dashboard as module
from stabdiag.render.dashboard import Panel, dashboards, load_dashboard
from stabdiag.render.dashboard_names import Place, check_series
from stabdiag.render.sections import completed

ROOT = Path(__file__).parents[2]
PANEL = '[[section]]\ntitle = "Mine"\n\n[[section.panel]]\n'


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "my.toml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def refused(path: Path | str) -> tuple[str, str]:
    with pytest.raises(StabdiagError) as caught:
        load_dashboard(path)
    return caught.value.message, caught.value.hint


def test_those_that_come_with_stabdiag_load_and_have_panels() -> None:
    assert dashboards() == ("attention", "distributed", "health", "minimal", "optimizer", "precision")
    for name in dashboards():
        found = load_dashboard(name)
        assert found.name == name
        assert found.title
        assert found.panels


def test_health_holds_the_sections_of_those_that_it_includes() -> None:
    titles = [section.title for section in load_dashboard("health").sections]
    for name in ("attention", "optimizer", "precision", "distributed"):
        assert {section.title for section in load_dashboard(name).sections} <= set(titles)


def test_a_file_of_ones_own_is_read(written: Callable[..., Path]) -> None:
    path = written(
        f'title = "My own"\nnote = "of mine"\n\n{PANEL}title = "Norms"\nview = "lines"\n'
        'series = ["grad.n*", "run.grad_norm"]\nsites = ["blocks.*"]\n'
        'log = true\nlimit = 1\ndashed = ["run.grad_norm"]\nlowest = true\n'
    )
    found = load_dashboard(path)
    assert (found.name, found.title, found.note) == ("my", "My own", "of mine")
    (panel,) = found.panels
    assert panel == Panel(
        "Norms",
        "",
        ("grad.n*", "run.grad_norm"),
        ("blocks.*",),
        "lines",
        log=True,
        limit=1.0,
        dashed=("run.grad_norm",),
        lowest=True,
    )
    assert panel.matching(["run.loss", "run.grad_norm", "grad.norm", "grad.nonfinite"]) == (
        "grad.norm",
        "grad.nonfinite",
        "run.grad_norm",
    )
    assert panel.shows("blocks.3.mlp")
    assert not panel.shows("lm_head")


def test_a_panel_is_left_out_of_runs_that_hold_the_better_series() -> None:
    panel = Panel(series=("attention.entropy",), unless="attention.entropy_ratio")
    assert panel.matching(["attention.entropy"]) == ("attention.entropy",)
    assert panel.matching(["attention.entropy", "attention.entropy_ratio"]) == ()


def test_dashboards_include_each_other_by_name_and_by_path_but_not_in_a_circle(
    written: Callable[..., Path],
) -> None:
    written('[[section]]\ninclude = "minimal"\n', "other.toml")
    path = written('[[section]]\ninclude = "other.toml"\n')
    assert load_dashboard(path).sections == load_dashboard("minimal").sections
    written('[[section]]\ninclude = "my.toml"\n', "other.toml")
    message, hint = refused(path)
    assert "includes itself" in message
    assert hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            f'{PANEL}series = ["grad.nrom"]',
            "line 5: there is no series 'grad.nrom'",
            "did you mean grad.norm",
        ),
        (f'{PANEL}series = ["gard.norm"]', "line 5: there is no series 'gard.norm'", "did you mean grad"),
        (f'{PANEL}series = ["gard.*"]', "there is no series 'gard.*'", "did you mean grad"),
        (f'{PANEL}series = ["grad.zz*"]', "there is no series 'grad.zz*'", "grad.norm"),
        (f'{PANEL}series = ["loss"]', "line 5: 'loss' is no series", "kind.statistic"),
        (f'{PANEL}view = "timelin"', "line 5: there is no view 'timelin'", "did you mean timeline"),
        (f'{PANEL}serie = ["run.loss"]', "line 5: a panel has no 'serie'", "did you mean series"),
        (f'{PANEL}series = "run.loss"', "series is a list in brackets, not 'run.loss'", "change series"),
        (f"{PANEL}series = [1]", "series is a list of names, not of 1", "run.loss"),
        (f'{PANEL}series = ["run.loss"]\nlog = "yes"', "line 6: log is true or false", "change log"),
        (f'{PANEL}series = ["run.loss"]\nlimit = true', "line 6: limit is a number", "change limit"),
        (f'{PANEL}series = ["run.loss"]\nunless = "run.los"', "no series 'run.los'", "did you mean run.loss"),
        (PANEL, "a panel shows nothing", "run.loss"),
        ("[[section]]\n", "a section has no title", "title ="),
        ('[section]\ntitle = "x"', "line 1: section is a list in brackets", "change section"),
        ("section = [1]", "section and panel are tables", "[[section]]"),
        ('[[section]]\ninclude = "health"\ntitle = "x"', "a section with include has no 'title'", "include"),
        ('[[section]]\ninclude = "healt"', "there is no dashboard 'healt'", "did you mean health"),
        ('[[section]\ntitle = "x"', "not valid TOML", "[[section]]"),
        (f'{PANEL}series = ["run.loss"\nview = 1', "(at line 6", "[[section]]"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_a_way_out(
    written: Callable[..., Path], text: str, message: str, hint: str
) -> None:
    told, way = refused(written(text))
    assert message in told
    assert hint in way
    assert "\n" not in told


def test_a_dashboard_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    message, hint = refused("helth")
    assert "there is no dashboard 'helth'" in message
    assert "did you mean health? (a file of your own ends in .toml)" in hint
    message, hint = refused(tmp_path / "missing.toml")
    assert "No such file" in message
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe\x00")
    assert "no text in UTF-8" in refused(tmp_path / "image.toml")[0]


def test_a_series_of_the_run_is_known_whoever_recorded_it(written: Callable[..., Path]) -> None:
    path = written(f'{PANEL}series = ["metric.bleu"]')
    assert "there is no series 'metric.bleu'" in refused(path)[0]
    assert load_dashboard(path, recorded=["metric.bleu"]).panels[0].series == ("metric.bleu",)


def test_every_series_that_the_analysis_knows_has_a_unit() -> None:
    needed = {series for signature in SIGNATURES for series in signature.needs}
    moved = {series for cause in CAUSES for series in cause.moves_first}
    for series in sorted(needed | moved):
        check_series(Place("", ""), series, ())


def test_others_stands_for_the_kinds_that_no_panel_names(written: Callable[..., Path]) -> None:
    run = run_of({"run.loss": [1.0], "router.load": [[0.5, 0.5]], "novel.wobble": [[1.0]]})
    path = written(
        '[[section]]\ntitle = "Loss"\n[[section.panel]]\nseries = ["run.loss"]\n'
        '[[section]]\ntitle = "Rest"\n[[section.panel]]\nview = "others"\n'
    )
    found = completed(load_dashboard(path), run)
    assert [section.title for section in found.sections] == ["Loss", "Novel", "Routers"]
    assert [panel.series for panel in found.panels] == [("run.loss",), ("novel.wobble",), ("router.load",)]


@pytest.mark.skipif(
    not Path(stabdiag.__file__).is_relative_to(ROOT / "stabdiag"), reason="an installed stabdiag is tested"
)
def test_in_a_checkout_they_are_read_from_beside_the_package() -> None:
    assert Path(str(module._folder())) == ROOT / "dashboards"


@pytest.mark.parametrize("version", ["standard", "editable"])
def test_a_wheel_and_an_editable_install_find_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The wheel holds them as resources of the package; the editable one leads to the checkout."""
    wheels = pytest.importorskip("hatchling.builders.wheel")
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the tests run without their checkout")
    (built,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=[version])
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path / "site")
    site = tmp_path / "site"
    links = [line for path in site.glob("*.pth") for line in path.read_text().splitlines()]
    paths = [str(site), *links]
    code = (
        "import stabdiag.render.dashboard as d; print(d.__file__); print(*d.dashboards()); d.load_dashboard()"
    )
    told = _python(code, paths)
    where, names = told.splitlines()
    assert Path(where).is_relative_to(site if version == "standard" else ROOT)
    assert names.split() == list(dashboards())


def _python(code: str, paths: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True
    ).stdout
