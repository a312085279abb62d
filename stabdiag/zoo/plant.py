"""Trains the reference model with a fault in it: `python -m stabdiag.zoo.plant FAULT [trainer options]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stabdiag.reference.train import build_data, parse, train
from stabdiag.zoo.fault import FAULTS


def main(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] not in FAULTS:
        known = "\n  ".join(fault.id for fault in FAULTS)
        sys.exit(f"usage: python -m stabdiag.zoo.plant FAULT [trainer options]\n\nfaults:\n  {known}")
    name, *rest = arguments
    fault = FAULTS[name]
    options = parse(rest, prog=f"python -m stabdiag.zoo.plant {name}", **fault.options)
    options, training, held_out = build_data(options)
    train(options, *fault.plant(options, training), held_out)


if __name__ == "__main__":
    main(sys.argv[1:])
