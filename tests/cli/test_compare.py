from __future__ import annotations

import json

import numpy as np


def test_identical_runs_say_so_and_a_page_lies_beside_the_second(stabdiag, record, falling, tmp_path):
    record("a", falling)
    record("b", falling)
    done = stabdiag("compare", "stabdiag-runs/a", "stabdiag-runs/b")
    assert done.returncode == 0
    assert done.stdout.startswith("Identical to the bit: 600 values over 300 steps.\n")
    assert done.stderr == "stabdiag: wrote stabdiag-runs/b/compare-a.html\n"
    assert "Identical to the bit" in (tmp_path / "stabdiag-runs/b/compare-a.html").read_text("utf-8")


def test_where_a_loss_leaves_the_other_is_told_with_what_only_it_has(stabdiag, record, falling, diverging):
    a, b = record("a", falling), record("b", diverging)
    done = stabdiag("compare", str(a), str(b), "--format", "text")
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert words.startswith("They part at step 200: the loss, 1.")
    assert "identical to the bit until step 199" in words
    assert "Only in B critical: The loss" in words
    assert not list(b.glob("compare-*"))


def test_json_is_for_programs(stabdiag, record, falling, diverging):
    a, b = record("a", falling), record("b", np.where(np.arange(300) < 250, falling, np.nan))
    told = json.loads(stabdiag("compare", str(a), str(b), "--format", "json").stdout)
    assert (told["schema"], told["verdict"]) == ("stabdiag.comparison/1", "part")
    assert (told["first"]["series"], told["first"]["step"], told["first"]["b"]) == ("run.loss", 250, None)
    assert told["only_b"]["findings"][0]["severity"] == "critical"


def test_markdown_and_html_go_where_they_are_asked_to(stabdiag, record, falling, diverging, tmp_path):
    a, b = record("a", falling), record("b", diverging)
    done = stabdiag("compare", str(a), str(b), "--format", "markdown")
    assert done.stdout.startswith("## They part at step 200")
    stabdiag("compare", str(a), str(b), "--format", "html", "--output", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    assert not (b / "compare-a.html").exists()


def test_bad_input_is_one_line_with_a_hint(stabdiag, record, falling, tmp_path):
    a = record("a", falling)
    for words in (("nowhere", str(a)), (str(a), str(record("empty", falling[:0]))), (str(a),)):
        done = stabdiag("compare", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 2
        assert done.stderr.splitlines()[1].startswith("stabdiag: hint: ")
    done = stabdiag("compare", str(a), str(a), "--output", str(tmp_path / "no" / "where.html"))
    assert done.returncode == 2
    assert "cannot write" in done.stderr


def test_what_a_run_calls_itself_is_neither_a_path_nor_a_control_of_the_terminal(
    stabdiag, record, falling, tmp_path
):
    a = record("a \x1b[31m<script>", falling, host="\x1b]0;title\x07")
    b = record("b", falling)
    done = stabdiag("compare", str(a), str(b))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    page = (tmp_path / "stabdiag-runs/b/compare-a-31m-script.html").read_text("utf-8")
    assert "<script> " not in page
    assert "&lt;script&gt;" in page


def test_comparing_imports_no_torch(stabdiag, record, falling, tmp_path):
    import os
    import subprocess
    import sys

    a = record("a", falling)
    code = (
        "import sys; from stabdiag.cli import main\n"
        f"try: main(['compare', {str(a)!r}, {str(a)!r}])\n"
        "except SystemExit: print('torch' in sys.modules, 'pandas' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "False False"


def test_logs_of_other_tools_are_compared_as_well(stabdiag, falling, diverging, tmp_path):
    for name, losses in (("a", falling), ("b", diverging)):
        lines = [f"{step},{loss}" for step, loss in enumerate(losses)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["step,cost", *lines]))
    done = stabdiag("compare", "a.csv", "b.csv", "--map", "cost=run.loss")
    assert done.returncode == 0
    assert done.stdout.startswith("They part at step 200: the loss, ")
    assert [path.name for path in tmp_path.glob("*.html")] == ["compare-a.csv.html"]
