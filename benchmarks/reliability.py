"""Whether the confidence in a cause means what it says, on recorded faults of known truth.

    python benchmarks/reliability.py FOLDER

FOLDER holds run directories, each with the zoo's `truth.json` beside the recording. The most important
incident above `info` answers for a run, and each of its root's causes is a claim that is right or wrong. A
confidence is calibrated where, of the claims made with it, that share is right.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Severity
from stabdiag.store.reader import load
from stabdiag.zoo.fault import FAULTS

EDGES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Answer:
    """The causes that were named, the likeliest first, with their confidences; which of them are true."""

    fault: str
    confidences: tuple[float, ...]
    right: tuple[bool, ...]
    unknown: bool


def answer(fault: str, diagnosis: Diagnosis) -> Answer | None:
    """None where nothing was found above `info`."""
    incident = next(iter(diagnosis.incidents), None)
    if incident is None or incident.severity is Severity.info:
        return None
    causes = diagnosis.findings[incident.root].causes
    true = FAULTS[fault].causes
    return Answer(
        fault,
        tuple(cause.confidence for cause in causes),
        tuple(cause.id in true for cause in causes),
        incident.cause is None,
    )


def answers(folder: Path) -> Iterator[Answer]:
    for path in sorted(folder.glob("*/truth.json")):
        fault = json.loads(path.read_text())["case"]["subject"]
        if fault in FAULTS and not path.parent.is_symlink():
            found = answer(fault, diagnose(load(path.parent)))
            if found:
                yield found


def table(said: np.ndarray, right: np.ndarray) -> None:
    print("confidence   claims   said   right")
    for low, high in pairwise(EDGES):
        inside = (said > low) & (said <= high)
        if inside.any():
            spoken = f"{low:.2f} to {high:.2f} {inside.sum():6} {said[inside].mean():8.2f}"
            print(f"{spoken} {right[inside].mean():7.2f}")
    bins = np.digitize(said, EDGES[1:-1], right=True)
    gaps = [abs(said[bins == b].sum() - right[bins == b].sum()) for b in np.unique(bins)]
    print(f"calibration error {sum(gaps) / len(said):.3f}, Brier score {np.mean((said - right) ** 2):.3f}")


def main(folder: Path) -> None:
    given = list(answers(folder))
    named = [a for a in given if a.confidences]
    print(f"{len(given)} faults found, {sum(a.unknown for a in given)} of unknown cause")
    print(f"first cause right {np.mean([a.right[0] for a in named]):.2f}, ", end="")
    print(f"one of three {np.mean([any(a.right[:3]) for a in named]):.2f}\n\nThe first cause:")
    table(np.array([a.confidences[0] for a in named]), np.array([a.right[0] for a in named], float))
    print("\nAll causes:")
    table(
        np.array([c for a in named for c in a.confidences]),
        np.array([r for a in named for r in a.right], float),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
