"""What is seen by comparing the processes of a world."""

from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

RANK = {"*_time": "s", "loss": "loss", "grad_norm": "norm", "memory": "MiB"}
REPLICA = {
    "fingerprint": "integer, equal for equal values",
    "differs": "ranks",
    "odd_rank": "rank",
}
KINDS.add(Kind("rank", "Ranks", RANK))
KINDS.add(Kind("replica", "Replicas", REPLICA))
