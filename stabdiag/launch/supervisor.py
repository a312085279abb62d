"""`stabdiag run`: makes the run directory, starts the target in it, and stays until it has ended."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import stabdiag
from stabdiag.core.cadence import Cadence
from stabdiag.core.config import Configuration
from stabdiag.core.run import RunInfo
from stabdiag.intervene.request import Acting
from stabdiag.launch.child import Child, Ending
from stabdiag.launch.closing import close_run
from stabdiag.launch.listener import Listener, Listeners
from stabdiag.launch.live import LiveAnalysis
from stabdiag.launch.signals import HeldSignals
from stabdiag.launch.stop import PoliteStop
from stabdiag.launch.stop_reasons import StopReasons
from stabdiag.launch.target import Target
from stabdiag.launch.voice import Voice
from stabdiag.store.directory import create_run_directory
from stabdiag.store.info import write_info

BOOTSTRAP = Path(__file__).with_name("bootstrap")
TICK = 0.2
"""Seconds between two looks at what the live analysis found; signals and the target's end come at once."""


@dataclass(frozen=True, slots=True)
class Options:
    """`name`: the run directory's own name."""

    cadence: Cadence = field(default_factory=Cadence)
    log_dir: Path = Path("stabdiag-runs")
    name: str | None = None
    page: bool = True
    stop_on_critical: bool = False
    acting: Acting = field(default_factory=Acting)
    config: Configuration = field(default_factory=Configuration)


def supervise(target: Target, options: Options, voice: Voice, listeners: Sequence[Listener] = ()) -> Ending:
    """Runs `target` recorded. StabdiagError where it could not be started; later, nothing is raised."""
    run_dir = create_run_directory(
        options.log_dir, options.name or target.name, exact=options.name is not None
    )
    acted = options.acting.to_json() if options.acting else {}
    info = RunInfo(
        command=target.words,
        started=time.time(),
        host=platform.node(),
        versions={"python": platform.python_version(), "stabdiag": stabdiag.__version__},
        git_commit=_git_commit(),
        cwd=str(Path.cwd()),
        configuration={**options.cadence.to_json(), **asdict(options.config), **acted},
    )
    write_info(run_dir, info)
    environment = child_environment(os.environ, run_dir, options.cadence, options.acting)
    with HeldSignals() as held:
        child = Child(target, environment, held.before)
        voice.say(f"recording into {run_dir}")
        hearing = Listeners(listeners, voice)
        hearing.began(run_dir)
        live = LiveAnalysis(run_dir, options.config, voice, hearing)
        live.start()
        stop = PoliteStop(child, run_dir, voice)
        reasons = StopReasons(run_dir, live, options.stop_on_critical, options.acting)
        while (ending := child.poll()) is None:
            arrival = held.wait(TICK)
            if arrival and not arrival.from_terminal:
                child.send(arrival.signal)
            because = reasons.look()
            if because:
                stop.insist(because)
        live.finish()
    try:
        close_run(run_dir, info, ending, options.config, hearing, page=options.page, voice=voice)
    except KeyboardInterrupt:
        voice.complain(f"interrupted: the run is kept, `stabdiag report {run_dir}` reports it")
    return ending


def child_environment(
    ours: Mapping[str, str], run_dir: Path, cadence: Cadence, acting: Acting
) -> dict[str, str]:
    """`ours` with the bootstrap first on PYTHONPATH, where and how to record, and what to act on."""
    folders = [f for f in ours.get("PYTHONPATH", "").split(os.pathsep) if f != str(BOOTSTRAP)]
    # A PYTHONPATH that is set but empty is none; an empty entry in a longer one is the working directory.
    kept = folders if any(folders) or len(folders) > 1 else []
    told = {**cadence.to_json(), **({"acting": acting.to_json()} if acting else {})}
    return {
        **ours,
        "PYTHONPATH": os.pathsep.join([str(BOOTSTRAP), *kept]),
        "STABDIAG_RUN": str(run_dir.absolute()),
        "STABDIAG_OPTIONS": json.dumps(told),
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
