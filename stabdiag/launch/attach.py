"""What the bootstrap calls in a process of the target, right after torch was imported."""

from __future__ import annotations

import json
import os
from pathlib import Path


def attach() -> None:
    """Starts the recorder with the run directory and the options that the supervisor left."""
    from stabdiag.capture.session import start
    from stabdiag.core.cadence import Cadence

    options = json.loads(os.environ["STABDIAG_OPTIONS"])
    start(Path(os.environ["STABDIAG_RUN"]), Cadence(**options))
