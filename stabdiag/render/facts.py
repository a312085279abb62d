"""What is known of a run beside its series."""

from __future__ import annotations

from datetime import datetime, timezone

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render import describe, numbers
from stabdiag.render.cost import cost


def facts(run: Run, diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """What is known of the run beside its numbers."""
    info = run.info
    started = datetime.fromtimestamp(info.started, timezone.utc) if info.started is not None else None
    block, spent = diagnosis.run, cost(run, diagnosis)
    # What was asked for; the cost tells of the cadence in words.
    configured = [(k, v) for k, v in info.configuration.items() if v and k not in ("budget", "every")]
    known = [
        ("directory", str(block.get("path") or "")),
        ("started", started.strftime("%Y-%m-%d %H:%M:%S UTC") if started else ""),
        ("ended", describe.ending(run, diagnosis) or ""),
        ("host", info.host),
        ("device", info.device),
        ("world size", numbers.count(info.world_size)),
        ("model", str(run.fact("model", "name", ""))),
        ("optimizer", str(run.fact("optimizer", "name", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
        ("git commit", info.git_commit or ""),
        ("interventions", describe.acted(run)),
        ("recorder", spent.spent_words),
        ("recorded", spent.steps_words),
        ("configuration", ", ".join(f"{name} = {value}" for name, value in configured)),
    ]
    return [(name, value) for name, value in known if value]
