from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from stabdiag.capture.plan import ENTRY, SLOTS, Follower, Leader
from stabdiag.core.tier import Tier

LEADER = """
import sys, time
from pathlib import Path
from stabdiag.capture.plan import Leader
from stabdiag.core.tier import Tier
leader = Leader(Path(sys.argv[1]))
for step in range(100_000):
    leader.announce(step, Tier(step % 5))
    if step == 2000:
        print("far", flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plan"


def test_what_is_announced_is_followed(path):
    leader, follower = Leader(path), Follower(path)
    for step, tier in enumerate(Tier):
        leader.announce(step, tier)
    assert [follower.tier(step) for step in range(6)] == [*Tier, None]


def test_a_follower_may_come_before_the_leader(path):
    follower = Follower(path)
    assert follower.tier(0) is None
    Leader(path).announce(0, Tier.SLOW)
    assert follower.tier(0) is Tier.SLOW


def test_the_ring_keeps_the_last_steps_and_never_says_an_old_one_for_a_new_one(path):
    leader, follower = Leader(path), Follower(path)
    for step in range(3 * SLOTS):
        leader.announce(step, Tier(step % 5))
    assert path.stat().st_size == SLOTS * ENTRY.size
    kept = range(2 * SLOTS, 3 * SLOTS)
    assert all(follower.tier(step) == step % 5 for step in kept)
    assert {follower.tier(step - SLOTS) for step in kept} == {follower.tier(step + SLOTS) for step in kept}
    assert follower.tier(SLOTS) is None


def test_steps_may_be_as_many_as_a_run_can_have(path):
    leader, follower = Leader(path), Follower(path)
    leader.announce(10**13, Tier.RARE)
    assert follower.tier(10**13) is Tier.RARE
    assert follower.tier(10**13 % SLOTS) is None


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"torn", b"\xff" * 8, ENTRY.pack(0x025D)[:7], ENTRY.pack(0xEE5D)]
)
def test_a_damaged_file_says_nothing(path, content):
    path.write_bytes(content)
    assert Follower(path).tier(0) is None


def test_a_file_that_shrinks_or_goes_says_nothing_and_ends_nobody(path):
    leader, follower = Leader(path), Follower(path)
    leader.announce(3, Tier.FAST)
    assert follower.tier(3) is Tier.FAST
    os.truncate(path, 0)
    assert follower.tier(3) is None
    path.unlink()
    assert follower.tier(3) is None
    leader.announce(4, Tier.FAST)


def test_a_folder_that_is_not_there_is_an_error_for_the_leader_alone(tmp_path):
    path = tmp_path / "absent" / "plan"
    assert Follower(path).tier(0) is None
    with pytest.raises(OSError, match="No such file"):
        Leader(path)


def test_another_process_follows_while_the_leader_writes_and_after_it_was_killed(path):
    follower = Follower(path)
    with subprocess.Popen([sys.executable, "-c", LEADER, str(path)], stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        seen = {step: follower.tier(step) for step in range(3000)}
        leader.send_signal(signal.SIGKILL)
        leader.wait()
    assert all(tier == step % 5 for step, tier in seen.items() if tier is not None)
    size = path.stat().st_size
    last = max(ENTRY.unpack_from(path.read_bytes(), at)[0] >> 16 for at in range(0, size, ENTRY.size))
    assert last >= 2000
    assert follower.tier(last) == last % 5
    assert follower.tier(last + 1) is None


def test_it_costs_microseconds(path):
    leader, follower = Leader(path), Follower(path)
    began = time.perf_counter()
    for step in range(2000):
        leader.announce(step, Tier.FAST)
        follower.tier(step)
    assert (time.perf_counter() - began) / 2000 < 100e-6
