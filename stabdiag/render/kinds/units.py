"""What layers of a certain sort are watched for."""

from __future__ import annotations

from stabdiag.render.kind import KINDS, OWN, Kind

TOKENS = {"cosine": "cosine, between tokens", "spread": OWN, "rank": "dimensions"}
NORMALIZATION = {
    "mismatch": "standard deviations",
    "variance_ratio": "ratio, batch to running",
    "headroom": "variance over eps",
    "gain": "largest over root mean square",
    "values": "of a channel in the batch",
    "items": "in the batch",
}
MODE = {"training": "1 in training mode", "evaluating": "1 in evaluation", "evaluations": "evaluations"}
LATENT = {
    "kl": "nats",
    "kl_dim": "nats a dimension",
    "active": "share of dimensions",
    "max_log_variance": "log-variance",
}
KINDS.add(Kind("tokens", "Tokens", TOKENS, "How alike the tokens of a sequence are."))
KINDS.add(Kind("saturation", "Saturation", {"share": "share of values", "units": "share of units"}))
KINDS.add(Kind("normalization", "Normalization", NORMALIZATION, "Running statistics against the batch."))
KINDS.add(Kind("mode", "Modes", MODE))
KINDS.add(Kind("latent", "Latent variables", LATENT))
