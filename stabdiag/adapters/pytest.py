"""pytest: `@pytest.mark.stable(fail_on="warning")` on a test that trains.

Registered for every pytest of the environment, so nothing but pytest is imported until a test has the mark.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stabdiag.api import Watch
    from stabdiag.core.config import Configuration

MARK = "stable"
NAMES = ("stabdiag", __name__)
"""Of this plugin: its entry point's, and the one by which `-p` and `pytest_plugins` know it."""

FOLDERS = "tmp_path_factory"
"""pytest's own fixture, which makes the folder of the run: among the temporary ones that pytest keeps."""

EVERY = 10
"""Steps from one that is recorded whole to the next. Not a budget: what is found must not depend on how busy
the machine is."""

HELP = (
    'stable(fail_on="warning", select=(), ignore=(), every=10): the training that the test does is recorded, '
    "and fails the test where it is unstable; select and ignore are those of `stabdiag check`"
)


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Whoever asks for it by its other name has it already: pytest would call that an error."""
    if plugin is sys.modules[__name__]:
        for name in NAMES:
            if name != manager.get_name(plugin):
                manager.set_blocked(name)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", HELP)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Not when it is collected: a conftest may mark it later.
    if isinstance(item, pytest.Function) and item.get_closest_marker(MARK):
        item.fixturenames.append(FOLDERS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    mark = item.get_closest_marker(MARK)
    if mark is None or not isinstance(item, pytest.Function):
        return (yield)
    recording, config, fail_on = _begun(item, **_asked(mark))
    try:
        result = yield
    except (Exception, pytest.fail.Exception) as error:
        recording.fail(error)
        if recording.run.steps:
            item.add_report_section("call", "stabdiag", told(recording, config))
        raise
    finally:
        recording.close()  # of a test that skips itself, too
    _judge(recording, config, fail_on)
    return result


def _asked(mark: pytest.Mark) -> dict[str, Any]:
    known = ("fail_on", "select", "ignore", "every")
    unknown = [name for name in mark.kwargs if name not in known]
    if mark.args or unknown:
        pytest.fail(f"stabdiag: the mark is written {HELP.partition(':')[0]}", pytrace=False)
    return dict(mark.kwargs)


def _begun(
    item: pytest.Function,
    fail_on: str = "warning",
    select: tuple[str, ...] | str = (),
    ignore: tuple[str, ...] | str = (),
    every: int = EVERY,
) -> tuple[Watch, Configuration, Any]:
    from stabdiag.adapters.hosted import recorded_by
    from stabdiag.analysis.diagnose import check_names
    from stabdiag.api import watch
    from stabdiag.core.config import load_configuration
    from stabdiag.core.errors import StabdiagError, UnknownName
    from stabdiag.core.finding import Severity

    by = recorded_by()
    if by:
        pytest.fail(
            f"stabdiag: {by} records this process: the mark has no recording to judge by", pytrace=False
        )
    try:
        if fail_on not in Severity.__members__:
            raise UnknownName("severity", fail_on, Severity.__members__)
        config = load_configuration(item.config.rootpath).with_selection(_several(select), _several(ignore))
        check_names(config)
        folders: Any = item.funcargs[FOLDERS]
        folder = folders.mktemp("stabdiag")
        return watch(log_dir=folder, name="run", every=every), config, Severity[fail_on]
    except StabdiagError as error:
        said = ". ".join(filter(None, (error.message, error.hint)))
        raise pytest.fail.Exception(f"stabdiag: {said}", pytrace=False) from None


def _several(names: tuple[str, ...] | str) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _judge(recording: Watch, config: Configuration, fail_on: Any) -> None:
    from stabdiag.api import diagnose

    __tracebackhide__ = True
    run = recording.run
    if not run.steps:
        pytest.fail(
            "stabdiag: a test marked as stable, which trains nothing in this process that could be recorded",
            pytrace=False,
        )
    if any(finding.severity >= fail_on for finding in diagnose(run, config).findings):
        pytest.fail(told(recording, config), pytrace=False)


def told(recording: Watch, config: Configuration) -> str:
    """What `stabdiag report` prints, in 80 columns, and the command that shows the rest: one, as the run is
    gone when pytest's folders are."""
    import io

    from stabdiag.api import diagnose
    from stabdiag.render import describe
    from stabdiag.render.terminal import console_for
    from stabdiag.render.text import render_text

    stream = io.StringIO()
    run = recording.run
    diagnosis = diagnose(run, config)
    report, *_ = describe.next_commands(run, diagnosis)
    render_text(run, diagnosis, console_for(stream), following=())
    return f"{stream.getvalue().rstrip()}\n\n  next       {report}"
