"""`%load_ext stabdiag` and `%%stabdiag`, in IPython itself and in the kernel of a notebook."""

from __future__ import annotations

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

import stabdiag

SETUP = """
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
def train(steps, scale=1.0):
    for _ in range(steps):
        loss = (scale * model(torch.randn(8, 4))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss
"""


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, colors="nocolor")
    shell.run_cell("%load_ext stabdiag").raise_error()
    shell.run_cell(SETUP).raise_error()
    yield shell
    shell.run_cell("%unload_ext stabdiag")
    InteractiveShell.clear_instance()


def test_the_training_of_a_cell_is_recorded_and_told_when_the_cell_ends(shell, capsys):
    shell.run_cell("%%stabdiag --every 1 --log-dir runs\ntrain(6)").raise_error()
    run = stabdiag.load("runs")
    assert run.steps == 6
    assert run.info.exit_status == 0
    assert "output.rms" in run
    assert "stabdiag: Stable: no instability in 6 steps." in capsys.readouterr().err
    assert not stabdiag.api.Watch.opened


def test_the_cell_is_what_it_would_be_without(shell, capsys):
    result = shell.run_cell("%%stabdiag\nseen = train(2)\nlen('abc')")
    assert result.result == 3
    assert shell.user_ns["seen"].requires_grad
    assert shell.run_cell("async def later(): return 5").success
    assert shell.run_cell("%%stabdiag\nawait later()").result == 5
    assert "Error" not in capsys.readouterr().err


def test_the_traceback_is_the_users_and_the_run_is_kept_and_told(shell, capsys):
    result = shell.run_cell("%%stabdiag --every 1\ntrain(3)\ntrain('many')")
    assert isinstance(result.error_in_exec, TypeError)
    said = capsys.readouterr()
    trace = said.out + said.err
    assert trace.count("Traceback (most recent call last)") == 1
    assert "----> 3 train('many')" in trace
    assert "adapters/ipython.py" not in trace
    assert "interactiveshell" not in trace
    run = stabdiag.load()
    assert (run.steps, run.info.exit_status) == (3, 1)
    assert next(run.events_of("exception")).data["type"] == "TypeError"
    assert "TypeError" in said.err.splitlines()[-1]


def test_a_cell_that_does_not_parse_or_trains_nothing_says_so(shell, capsys):
    assert not shell.run_cell("%%stabdiag\nif True").success
    shell.run_cell("%%stabdiag\n1 + 1").raise_error()
    assert "trained nothing that could be recorded" in capsys.readouterr().err
    assert not stabdiag.api.Watch.opened


@pytest.mark.parametrize(
    ("options", "told"),
    [("--every much", "invalid int"), ("--budget lots", "lots"), ("--no-such", "no-such")],
)
def test_a_bad_option_is_one_line_and_nothing_trains(shell, capsys, options, told):
    result = shell.run_cell(f"%%stabdiag {options}\nunreached = True")
    assert not result.success
    said = capsys.readouterr().err + capsys.readouterr().out
    assert told in said
    assert "Traceback" not in said
    assert "unreached" not in shell.user_ns


def test_a_recording_that_is_open_is_not_doubled(shell, capsys):
    shell.run_cell(
        "import stabdiag\nwith stabdiag.watch() as run: get_ipython().run_cell('%%stabdiag\\ntrain(2)')"
    )
    assert "not recorded twice" in capsys.readouterr().err
    assert shell.user_ns["run"].run.steps == 2


def test_unloading_leaves_nothing_behind(shell):
    before = len(shell.events.callbacks["post_run_cell"])
    shell.run_cell("%unload_ext stabdiag")
    assert len(shell.events.callbacks["post_run_cell"]) == before - 1
    assert not shell.run_cell("%%stabdiag\n1").success
    shell.run_cell("%load_ext stabdiag")


def executed(folder, *sources, fails=False):
    """The outputs of the last cell, in a kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    if fails:
        with pytest.raises(CellExecutionError):
            client.execute()
    else:
        client.execute()
    return notebook.cells[-1].outputs


def html(outputs):
    return [
        "".join(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {})
    ]


@pytest.mark.slow
def test_a_notebook_shows_how_training_goes_in_one_place_and_then_the_report(tmp_path):
    loop = "%load_ext stabdiag\n" + SETUP
    outputs = executed(
        tmp_path,
        loop,
        "%%stabdiag --every 1\nimport time\nfor _ in range(15):\n    _ = train(4); time.sleep(0.1)",
    )
    live, report = html(outputs)
    assert "60 steps" in live
    assert "steps/s" in live
    assert "waiting" not in live
    assert report.startswith("<iframe")


@pytest.mark.slow
def test_a_failing_cell_of_a_notebook_has_one_error_and_the_report_after_it(tmp_path):
    loop = "%load_ext stabdiag\n" + SETUP
    outputs = executed(tmp_path, loop, "%%stabdiag --no-live --every 1\ntrain(3)\ntrain(9, 'x')", fails=True)
    kinds = [output.output_type for output in outputs]
    assert kinds.count("error") == 1
    assert kinds.index("error") < kinds.index("display_data")
    findings, report = html(outputs)
    assert "Failed" in findings
    assert "ended after step 2 with TypeError" in report
