from __future__ import annotations

from stabdiag.render.kind import KINDS, Kind

UNITS = {"log_z": "nats", "mean": "nats", "max": "nats", "entropy": "nats"}
NOTE = "Log Z is the logarithm of the softmax's denominator; where it drifts, precision is lost."
KINDS.add(Kind("logits", "Logits of the prediction", UNITS, NOTE))
