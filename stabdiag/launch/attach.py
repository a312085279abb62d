"""What the bootstrap calls in a process of the target, right after torch was imported."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabdiag.capture.actor import Actor


def attach() -> None:
    """Starts the recorder with the run directory and the options that the supervisor left."""
    from stabdiag.capture.session import start
    from stabdiag.core.cadence import Cadence

    options = json.loads(os.environ["STABDIAG_OPTIONS"])
    actor = _actor(options.pop("acting", None))
    start(Path(os.environ["STABDIAG_RUN"]), Cadence(**options), actor)


def _actor(asked: Mapping[str, Any] | None) -> Actor | None:
    """What is to act on training. Without it nothing that could is even imported."""
    if asked is None:
        return None
    from stabdiag.intervene.controller import Controller
    from stabdiag.intervene.request import Acting

    return Controller(Acting.from_json(asked))
