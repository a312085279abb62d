from __future__ import annotations

import json

import pytest


@pytest.fixture
def lost(record, diverging):
    return record("lost", diverging)


def test_without_a_format_text_is_shown_and_the_page_is_written(stabdiag, lost):
    done = stabdiag("report")
    assert done.returncode == 0
    assert done.stdout.startswith("Failed: ")
    assert "\x1b" not in done.stdout
    assert "<html" in (lost / "report.html").read_text()
    assert "report.html" in done.stderr


def test_json_is_all_that_is_on_stdout(stabdiag, lost):
    done = stabdiag("report", "--format", "json")
    report = json.loads(done.stdout)
    assert report["findings"][0]["signature"] == "loss-divergence"
    assert done.stderr == ""
    assert not (lost / "report.html").exists()


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_output_takes_any_format(stabdiag, lost, tmp_path, form):
    path = tmp_path / "out"
    done = stabdiag("report", "--format", form, "--output", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert path.stat().st_size > 100
    assert not (lost / "report.html").exists()


def test_an_output_that_cannot_be_written_is_an_error(stabdiag, lost):
    for form in ("json", "html"):
        done = stabdiag("report", "--format", form, "--output", "missing/out")
        assert done.returncode == 2
        assert "cannot write missing/out" in done.stderr


def test_several_runs_are_reported_one_after_the_other(stabdiag, lost, record, falling):
    healthy = record("healthy", falling)
    done = stabdiag("report", str(healthy), str(lost))
    assert done.stdout.startswith("Stable: ")
    assert "\nFailed: " in done.stdout
    assert (healthy / "report.html").exists()
    assert (lost / "report.html").exists()
    assert stabdiag("report", "--output", "x", str(healthy), str(lost)).returncode == 2


def test_plotly_from_its_address_makes_a_small_page(stabdiag, lost):
    stabdiag("report", "--plotly", "cdn")
    small = (lost / "report.html").stat().st_size
    stabdiag("report")
    assert small < 500_000 < (lost / "report.html").stat().st_size


def test_selection_and_thresholds_reach_the_report(stabdiag, lost):
    for words in (
        ("--ignore", "loss-divergence"),
        ("--set", "loss-divergence.rise=1000"),
        ("--select", "loss-spike"),
    ):
        report = json.loads(stabdiag("report", "--format", "json", *words).stdout)
        assert "loss-divergence" not in [f["signature"] for f in report["findings"]]


def test_a_dashboard_says_what_the_page_shows(stabdiag, lost, tmp_path):
    stabdiag("report", "--dashboard", "minimal", "--plotly", "cdn")
    page = (lost / "report.html").read_text()
    assert "Incidents" in page
    assert "Layers over steps" not in page
    own = tmp_path / "own.toml"
    own.write_text('[[section]]\ntitle = "Only this"\n[[section.panel]]\nseries = ["run.loss"]\n')
    assert stabdiag("report", "--dashboard", str(own)).returncode == 0
    assert "Only this" in (lost / "report.html").read_text()


@pytest.mark.parametrize(
    ("dashboard", "told"), [("minimum", "did you mean minimal?"), ("missing.toml", "No such file")]
)
def test_a_dashboard_that_is_none_is_told_before_anything_else(stabdiag, lost, dashboard, told):
    done = stabdiag("report", "--dashboard", dashboard)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert not (lost / "report.html").exists()


def test_a_run_is_written_for_tensorboard_into_its_directory_or_where_output_says(stabdiag, lost, tmp_path):
    done = stabdiag("report", "--format", "tensorboard")
    assert (done.returncode, done.stdout) == (0, "")
    assert "tensorboard --logdir stabdiag-runs/lost/tensorboard" in done.stderr
    assert len(list((lost / "tensorboard").iterdir())) == 1
    assert not (lost / "report.html").exists()
    assert stabdiag("report", "--format", "tensorboard", "--output", "board").returncode == 0
    assert len(list((tmp_path / "board").iterdir())) == 1
    again = stabdiag("report", "board", "--format", "json")
    assert json.loads(again.stdout)["verdict"] == "failed"
