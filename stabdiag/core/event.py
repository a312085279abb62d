"""Things that happen once, beside the series: one JSON line each in `events.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EVENTS: Mapping[str, str] = {
    "process": "a process began to record: pid, rank, python, versions, device, world_size, argv",
    "planned": "how many optimizer steps the host is to take: steps, source (which setting says so)",
    "model": "a root module was found: name (class), parameters, trainable, modules",
    "optimizer": "an optimizer was found: name (class), family (class of torch whose step it takes), groups "
    "(hyperparameters of each)",
    "loss": "what the loss is computed by: function, classes (of a cross-entropy, else absent)",
    "coverage": "something that could not be observed: what, because",
    "overwritten": "something else than an optimizer wrote to parameters: names (five), count, share",
    "acting": "the model is called for its answers between steps, to be trained on them: calls, steps",
    "carried": "an input is what the model put out before, as a recurrent state: input",
    "nonfinite": "the first non-finite value of a place: what (loss, gradient, batch), sites",
    "stall": "a step took far longer than those before: seconds, usual",
    "skipped-step": "the gradient scaler withheld an optimizer step; the scale is in run.loss_scale",
    "intervention": "an intervention acted: intervention, action, numbers; or its end: counts of actions",
    "stop": "the end of the target was asked for, by an intervention or an option: because",
    "recorder-error": "a probe failed and was switched off: probe, error, traceback",
    "exception": "the target ended with an exception: type, message",
    "finding": "an alert of the live analysis: signature, severity, sites, message",
    "flight": "a flight record was written: because, record (its folder), first (step), batches (steps)",
    "end": "a process ended in good order: steps",
    "exit": "the target ended: exit_status, signal, message",
}


@dataclass(frozen=True, slots=True)
class Event:
    """`step` is None where it belongs to no step; `time` is seconds since the epoch."""

    event: str
    time: float
    step: int | None = None
    rank: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        head = {"event": self.event, "time": self.time, "step": self.step, "rank": self.rank}
        return {**head, **self.data}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Event:
        head = ("event", "time", "step", "rank")
        return cls(
            event=str(record["event"]),
            time=float(record.get("time", 0.0)),
            step=record.get("step"),
            rank=int(record.get("rank", 0)),
            data={key: value for key, value in record.items() if key not in head},
        )
