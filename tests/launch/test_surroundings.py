"""What the target sees is what it would see without stabdiag."""

from __future__ import annotations

import json
import sys

import pytest

LOOK = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "main": __name__, "file": globals().get("__file__"),
    "modules": sorted(m for m in sys.modules if "stabdiag" in m or m == "sitecustomize"),
    "cwd": os.getcwd(), "flags": repr(sys.flags), "executable": sys.executable,
    "spec": getattr(globals().get("__spec__"), "name", None),
    "finders": len(sys.path_importer_cache), "interrupt": signal_state(),
}))
"""
STATE = """
import signal
def signal_state():
    held = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    default = [s.name for s in signal.Signals if s not in (9, 19) and signal.getsignal(s) == signal.SIG_IGN]
    return [held, default]
"""


@pytest.fixture
def look(workshop):
    workshop.write("look.py", STATE + LOOK)
    workshop.write("pkg/__init__.py", "")
    workshop.write("pkg/__main__.py", STATE + LOOK)
    workshop.write("folder/__main__.py", STATE + LOOK)


WAYS = [
    ("look.py", "--help", "-q", "--", "--every"),
    ("-m", "pkg", "--help"),
    ("-mlook", "x"),
    ("-c", STATE + LOOK, "-x"),
]


@pytest.mark.parametrize(
    "words", [*WAYS, ("folder", "a")], ids=["script", "module", "joined", "code", "folder"]
)
def test_a_python_target_sees_what_it_would_see_alone(workshop, look, words):
    alone = workshop.plain(sys.executable, *words)
    recorded = workshop.run(*words)
    assert alone.returncode == 0, alone.stderr
    assert json.loads(recorded.stdout) == json.loads(alone.stdout)


@pytest.mark.parametrize("path", ["", "lib", "lib::other", ":"], ids=repr)
def test_sys_path_is_that_of_any_pythonpath(workshop, look, path):
    for folder in ("lib", "other"):
        workshop.write(f"{folder}/module.py", "")
    alone = workshop.plain(sys.executable, "look.py", PYTHONPATH=path)
    assert json.loads(workshop.run("look.py", PYTHONPATH=path).stdout) == json.loads(alone.stdout)


def test_stdin_is_the_targets(workshop):
    done = workshop.run("-c", "import sys; print(sys.stdin.read()[::-1])", stdin="abc")
    assert done.stdout == "cba\n"


def test_inherited_files_stay_open(workshop):
    command = f"{sys.executable} -m stabdiag run -q -c 'import os; print(os.read(5, 9))' 5<data"
    workshop.write("data", "inherited")
    assert workshop.plain("bash", "-c", command).stdout == "b'inherited'\n"


def test_a_program_on_path_and_a_shell_script_reach_the_same_processes(workshop):
    script = workshop.write("bin/launch-it", f'#!/bin/sh\nexec {sys.executable} worker.py "$@"\n')
    script.chmod(0o755)
    workshop.write("worker.py", "import os, sys; print(sys.argv[1:], 'STABDIAG_RUN' in os.environ)")
    path = f"{script.parent}:{workshop.environment()['PATH']}"
    for words in (
        ("launch-it", "--every", "1"),
        ("bin/launch-it", "--every", "1"),
        ("sh", "bin/launch-it", "--every", "1"),
    ):
        assert workshop.run(*words, PATH=path).stdout == "['--every', '1'] True\n"
        assert (workshop.run_directory().name).startswith(("launch-it-", "sh-"))


def test_spawned_workers_are_reached_too(workshop):
    workshop.write("torch.py", "")
    workshop.write(
        "spawns.py",
        "import multiprocessing as mp, os, sys\n"
        "def work(q):\n"
        "    q.put([type(f).__name__ for f in sys.meta_path if type(f).__name__ == 'TorchImport'])\n"
        "if __name__ == '__main__':\n"
        "    context = mp.get_context('spawn')\n"
        "    q = context.Queue()\n"
        "    p = context.Process(target=work, args=(q,))\n"
        "    p.start(); print(q.get()); p.join()\n",
    )
    assert workshop.run("spawns.py").stdout == "['TorchImport']\n"


def test_an_existing_sitecustomize_is_chained(workshop):
    workshop.write("site/sitecustomize.py", "import sys; sys.chained = __file__; print('mine', __name__)")
    look = "import sys, sitecustomize; print(sys.chained == sitecustomize.__file__, sitecustomize.__file__)"
    folder = str(workshop.folder / "site")
    alone = workshop.plain(sys.executable, "-c", look, PYTHONPATH=folder)
    assert alone.stdout.startswith("mine sitecustomize\nTrue")
    # The supervisor is a Python process of that environment too, and prints it first.
    assert workshop.run("-c", look, PYTHONPATH=folder).stdout == "mine sitecustomize\n" + alone.stdout


def test_a_sitecustomize_that_fails_fails_as_it_would_alone(workshop):
    workshop.write("site/sitecustomize.py", "raise RuntimeError('mine')")
    folder = str(workshop.folder / "site")
    alone = workshop.plain(sys.executable, "-c", "pass", PYTHONPATH=folder)
    assert "RuntimeError: mine" in alone.stderr
    recorded = workshop.run("--quiet", "-c", "pass", PYTHONPATH=folder)
    assert recorded.stderr == 2 * alone.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_program_ignores_and_blocks_the_signals_that_it_would_alone(workshop):
    words = ("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")

    def standard_signals(text):
        # Above 31 lie signals of the C library's own, which posix_spawn sets as it likes.
        return [int(line.split()[1], 16) & (2**31 - 1) for line in text.splitlines()]

    alone = standard_signals(workshop.plain(*words).stdout)
    assert len(alone) == 2
    assert standard_signals(workshop.run(*words).stdout) == alone
