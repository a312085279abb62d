"""Curves as other tools would have logged them, and what writes event files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

Points = Mapping[int, float]
WriteEvents = Callable[..., Path]


@pytest.fixture
def write_events() -> WriteEvents:
    """Writes an event file of `tag -> step -> value` into a folder, and gives its path."""

    def write(folder: Path, tags: Mapping[str, Points], start: float = 1e9) -> Path:
        before = set(folder.glob("*tfevents*"))
        writer = EventFileWriter(str(folder), filename_suffix=f".{len(before)}")
        steps = sorted({step for points in tags.values() for step in points})
        for step in steps:
            values = [
                Summary.Value(tag=tag, simple_value=points[step])
                for tag, points in tags.items()
                if step in points
            ]
            writer.add_event(Event(step=step, wall_time=start + step, summary=Summary(value=values)))
        writer.close()
        (path,) = set(folder.glob("*tfevents*")) - before
        return path

    return write


@pytest.fixture
def falling() -> Points:
    """A healthy loss at steps 0 to 399."""
    noise = np.random.default_rng(0).normal(0, 0.03, 400)
    return dict(enumerate((1.5 + 3 * np.exp(-np.arange(400) / 80) + noise).tolist()))
