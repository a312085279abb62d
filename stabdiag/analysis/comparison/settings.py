"""What two runs were told, and in which surroundings: the facts that are not the same."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stabdiag.core.comparison import Difference
from stabdiag.core.run import Run

OPTIMIZER = {"lr": "learning rate", "weight_decay": "weight decay", "eps": "epsilon"}
HIDDEN = ("pid", "name", "index")


def settings(a: Run, b: Run) -> tuple[Difference, ...]:
    """Those of the training first, those of the machine and the recorder last; beside the log of another
    tool only what both tell."""
    told_a, told_b = dict(_facts(a)), dict(_facts(b))
    if is_foreign(a) or is_foreign(b):
        told_a = {what: told for what, told in told_a.items() if told and told_b.get(what)}
        told_b = {what: told_b[what] for what in told_a}
    return tuple(
        Difference(what, told_a.get(what, ""), told_b.get(what, ""))
        for what in dict.fromkeys([*told_a, *told_b])
        if told_a.get(what, "") != told_b.get(what, "")
    )


def is_foreign(run: Run) -> bool:
    """Whether another tool wrote it."""
    return "read from" in run.info.configuration


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    info = run.info
    yield "command", shlex.join(info.command)
    yield "working directory", info.cwd
    yield "git commit", info.git_commit or ""
    for event in ("model", "optimizer", "loss"):
        for data in _of_rank_0(run, event):
            number = data.get("index") or 0
            name = f"{event} {number}" if number else event
            yield name, str(data.get("name", data.get("function", "")))
            yield from _numbers(name, data)
    for site in run.sites("batch"):
        yield f"batch {site.name}", " × ".join(map(str, site.shape)) + f" {site.dtype}"
    yield "computed in", _types(run)
    yield "processes", str(info.world_size)
    yield (
        "interventions",
        ", ".join(sorted({str(e.data.get("intervention")) for e in run.events_of("intervention")})),
    )
    yield "device", info.device
    yield "host", info.host
    versions = {**dict(run.fact("process", "versions", {}) or {}), **info.versions}
    for name, version in sorted(versions.items()):
        yield f"{name} version", str(version)
    for name, value in info.configuration.items():
        yield f"recorder {name}", _plain(value)
    yield "ended", info.signal or ("" if info.exit_status is None else f"status {info.exit_status}")


def _of_rank_0(run: Run, event: str) -> Iterator[Mapping[str, Any]]:
    return (e.data for e in run.events_of(event) if e.rank == 0)


def _numbers(name: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    groups = data.get("groups") or []
    for number, group in enumerate(groups if isinstance(groups, list) else []):
        where = name if len(groups) == 1 else f"{name}, group {number}"
        for key, value in group.items() if isinstance(group, Mapping) else ():
            yield f"{where}: {OPTIMIZER.get(key, key)}", _plain(value)
    for key, value in data.items():
        if key not in (*HIDDEN, "groups", "function"):
            yield f"{name}: {key}", _plain(value)


def _types(run: Run) -> str:
    """`float32`, or `bfloat16 at 20 of 35 places, float32 at 15`."""
    types = Counter(site.dtype for site in run.sites("output") if site.dtype)
    total = sum(types.values())
    if len(types) < 2:
        return next(iter(types), "")
    return ", ".join(f"{name} at {n} of {total} places" for name, n in types.most_common())


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "" if value is None else str(value)
