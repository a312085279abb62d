"""`@pytest.mark.stable`, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]
INSTALLED = any(point.name == "stabdiag" for point in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "stabdiag.adapters.pytest")
HEAD = """
import pytest
import torch
torch.set_num_threads(1)

def train(lr, steps=60, model=None):
    torch.manual_seed(0)
    model = model or torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        x = torch.randn(16, 4)
        loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss
"""


@pytest.fixture
def tested(pytester):
    """Runs pytest on a file with these tests."""

    def run(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD + tests)
        return pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", "--strict-markers", *options)

    return run


def test_a_stable_training_passes_and_an_unstable_one_fails_with_the_incident(tested):
    done = tested(
        """
@pytest.mark.stable
def test_good():
    train(0.05)

@pytest.mark.stable(fail_on="critical")
def test_bad():
    train(1e4)

def test_unmarked():
    train(1e4)
"""
    )
    done.assert_outcomes(passed=2, failed=1)
    text = done.stdout.str()
    assert "Failed: " in text
    assert "CRITICAL" in text
    assert "cause" in text
    assert text.count("  next  ") == 1
    assert "next       stabdiag report " in text
    assert "adapters/pytest.py" not in text


@pytest.mark.parametrize("named", ["-p", "pytest_plugins"])
def test_who_asks_for_the_plugin_by_name_beside_its_entry_point_has_it_once(tested, pytester, named):
    if not INSTALLED:
        pytest.skip("the entry point is not installed")
    if named == "pytest_plugins":
        pytester.makeconftest('pytest_plugins = ["stabdiag.adapters.pytest"]')
    asked = ("-p", "stabdiag.adapters.pytest") if named == "-p" else ()
    done = tested("@pytest.mark.stable\ndef test_bad():\n    train(1e4)\n", *asked)
    done.assert_outcomes(failed=1)
    assert done.stdout.str().count("CRITICAL") == 1
    assert "already registered" not in done.stderr.str()


def test_the_run_of_a_failed_test_lies_among_the_temporary_folders_and_can_be_reported(tested, pytester):
    done = tested("@pytest.mark.stable\ndef test_bad():\n    train(1e4)\n", "--basetemp=kept")
    (run,) = (pytester.path / "kept").glob("stabdiag0/run")
    assert f"stabdiag report {run}" in done.stdout.str().replace("\n", "")
    assert (run / "findings.json").exists()
    assert not (pytester.path / "stabdiag-runs").exists()


def test_findings_that_are_not_selected_or_are_ignored_do_not_fail(tested):
    done = tested(
        """
@pytest.mark.stable(select="dead-units")
def test_selected():
    train(1e4)

@pytest.mark.stable(fail_on="critical", ignore=["loss-divergence", "nonfinite-origin", "lr-divergence"])
def test_ignored():
    train(0.05)
"""
    )
    done.assert_outcomes(passed=2)


def test_a_test_that_trains_nothing_fails_and_says_so(tested):
    done = tested("@pytest.mark.stable\ndef test_nothing():\n    assert 1 + 1 == 2\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*trains nothing in this process that could be recorded*"])


def test_a_test_that_fails_by_itself_keeps_its_failure_and_gets_the_incident_beside_it(tested):
    done = tested(
        """
@pytest.mark.stable
def test_asserts():
    loss = train(1e4)
    assert loss.isfinite()

@pytest.mark.stable
def test_fails():
    train(0.05)
    pytest.fail("by hand")

@pytest.mark.stable
def test_skips():
    pytest.skip("not here")

@pytest.mark.stable
@pytest.mark.xfail(strict=True)
def test_expected():
    train(1e4)
"""
    )
    done.assert_outcomes(failed=2, skipped=1, xfailed=1)
    done.stdout.fnmatch_lines(
        ["*assert loss.isfinite()", "*- Captured stabdiag call -*", "Failed: *", "*by hand*"]
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('fail_on="fatal"', "there is no severity 'fatal'"),
        ('select=["loss-spikes"]', "did you mean loss-spike"),
        ("failing=3", "the mark is written stable(fail_on="),
        ("every=0", "every"),
    ],
)
def test_a_mark_that_is_written_wrong_is_told_in_a_line(tested, arguments, told):
    done = tested(f"@pytest.mark.stable({arguments})\ndef test_it():\n    train(0.05)\n")
    done.assert_outcomes(failed=1)
    assert told in done.stdout.str()
    assert not any(word in done.stdout.str() for word in ("Traceback", "During handling"))


def test_classes_parameters_fixtures_and_unittest_are_tests_like_others(tested):
    done = tested(
        """
import unittest

@pytest.fixture
def model():
    return torch.nn.Linear(4, 1)

@pytest.mark.stable(fail_on="critical")
class TestMany:
    @pytest.mark.parametrize("lr", [0.01, 0.02])
    def test_with_a_model_from_a_fixture(self, model, lr):
        train(lr, model=model)

@pytest.mark.stable(fail_on="critical")
class TestCase(unittest.TestCase):
    def test_it(self):
        train(0.05)
"""
    )
    done.assert_outcomes(passed=3)


@pytest.mark.slow
def test_it_works_in_the_workers_of_xdist(tested):
    pytest.importorskip("xdist")
    done = tested(
        "@pytest.mark.stable\n@pytest.mark.parametrize('lr', [0.05, 1e4])\ndef test_it(lr):\n    train(lr)\n",
        "-n2",
    )
    done.assert_outcomes(passed=1, failed=1)
    assert "stabdiag report " in done.stdout.str()


def test_a_conftest_may_set_the_mark(tested, pytester):
    pytester.makeconftest(
        """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.stable(fail_on="critical"))
"""
    )
    tested("def test_good():\n    train(0.05)\ndef test_bad():\n    train(1e4)\n").assert_outcomes(
        passed=1, failed=1
    )


def test_the_mark_is_listed_with_what_it_takes(tested):
    assert "@pytest.mark.stable(fail_on=" in tested("", "--markers").stdout.str()


def test_without_the_mark_nothing_but_the_plugin_itself_is_imported(pytester):
    pytester.makepyfile(
        """
import sys
def test_light():
    ours = {name for name in sys.modules if name.startswith("stabdiag")}
    assert ours == {"stabdiag", "stabdiag.adapters", "stabdiag.adapters.pytest"}
    assert not {"torch", "numpy", "pandas", "scipy"} & set(sys.modules)
"""
    )
    pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_under_stabdiag_run_the_mark_says_that_it_cannot_judge(pytester):
    pytester.makepyfile(HEAD + "@pytest.mark.stable\ndef test_it():\n    train(0.05)\n")
    words = ("-m", "stabdiag", "run", "-q", "--no-report", "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=pytester.path
    )
    assert done.returncode == 1
    assert "`stabdiag run` records this process" in done.stdout
