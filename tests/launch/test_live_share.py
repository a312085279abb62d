"""What the looks at a growing run cost."""

from __future__ import annotations

import time

import numpy as np

from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.site import Site
from stabdiag.launch import live
from stabdiag.launch.listener import Listeners
from stabdiag.launch.voice import Voice
from stabdiag.store.writer import RankWriter

LOOK = 0.05
RUN = Site("run", "run")
LOSS = {"loss": np.zeros(1, np.float32)}


def test_looks_that_cost_much_are_taken_rarely(tmp_path, monkeypatch):
    """At most 100 ms of a core a second, however long one look takes."""
    spent = []

    def slow(run, config):
        began = time.thread_time()
        while time.thread_time() - began < LOOK:
            pass
        spent.append(LOOK)
        return Diagnosis("stable", (), (), (), {})

    monkeypatch.setattr(live, "PERIOD", 0.01)
    monkeypatch.setattr("stabdiag.analysis.diagnose.diagnose", slow)
    monkeypatch.setattr("os.nice", lambda by: 0)
    writer = RankWriter(tmp_path, 0)
    writer.write("run", 0, 0.0, [RUN], LOSS)
    voice = Voice(quiet=True)
    looks = live.LiveAnalysis(tmp_path, Configuration(), voice, Listeners((), voice))
    began = time.monotonic()
    looks.start()
    for step in range(1, 151):
        writer.write("run", step, 0.0, [RUN], LOSS)
        time.sleep(0.02)
    looks.finish()
    assert len(spent) >= 2
    assert sum(spent) <= 0.1 * (time.monotonic() - began) + LOOK
