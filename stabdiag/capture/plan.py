"""Which steps the processes of a world record whole: one says so ahead, the others follow.

Each has its own timings, and so would choose its own steps; but what is spread over all of them can be
put together only at steps that all have recorded. They agree through a file, as a message could hang.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

from stabdiag.core.tier import Tier

AHEAD = 4
"""Steps between the announcement and the step that is meant: ranks are never further apart than the
collectives of a step allow."""
SLOTS = 512
ENTRY = struct.Struct("<Q")
CHECK = 0x5D
Own = Callable[[int], Tier]
"""The tier that a process would choose for a step by itself."""


class Leader:
    """Writes the plan: a ring of entries of eight bytes, each of which one write replaces whole.

    Neither memory-mapped, as a full disk or a truncated file would then end the process, nor locked.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._announced: dict[int, Tier] = {}

    def choose(self, step: int, own: Own) -> Tier:
        """What was announced for `step`, and announces what is to come. Of steps that are to cost more than
        the fast tier one is announced at a time, as none of them is paid for before it has come."""
        tier = self._announced.pop(step, None)
        ahead = own(step + AHEAD)
        if ahead > Tier.FAST and max(self._announced.values(), default=Tier.NONE) > Tier.FAST:
            ahead = Tier.FAST
        with contextlib.suppress(OSError):  # the others then choose by themselves
            self.announce(step + AHEAD, ahead)
        self._announced[step + AHEAD] = ahead
        return own(step) if tier is None else tier

    def announce(self, step: int, tier: Tier) -> None:
        """Raises OSError, and then nobody follows."""
        entry = ENTRY.pack(step << 16 | int(tier) << 8 | CHECK)
        os.pwrite(self._fd, entry, step % SLOTS * ENTRY.size)

    def close(self) -> None:
        os.close(self._fd)


class Follower:
    """Reads the plan that a leader in another process writes, or is yet to begin."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def choose(self, step: int, own: Own) -> Tier:
        tier = self.tier(step)
        return own(step) if tier is None else tier

    def tier(self, step: int) -> Tier | None:
        """What was announced for `step`; None where nothing was, or nothing can be read."""
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._fd, ENTRY.size, step % SLOTS * ENTRY.size)
        except OSError:
            return None
        if len(data) < ENTRY.size:
            return None
        (entry,) = ENTRY.unpack(data)
        if entry >> 16 != step or entry & 0xFF != CHECK:
            return None
        with contextlib.suppress(ValueError):
            return Tier(entry >> 8 & 0xFF)
        return None

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def plan_of(run_dir: Path, rank: int, world: int) -> Leader | Follower | None:
    """The part that a process has in the plan of its world, None where it is alone or leads and cannot
    write. `rank` is the number under which it records: a relaunch has the next ones, and its own plan."""
    if world < 2:
        return None
    path = run_dir / f"plan-{rank // world}"
    try:
        return Leader(path) if rank % world == 0 else Follower(path)
    except OSError:
        return None
