"""A site: one place in a training run at which statistics are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KINDS = (
    "run",
    "batch",
    "evaluation",
    "output",
    "output_grad",
    "initial",
    "weight",
    "grad",
    "update",
    "optimizer",
    "attention",
    "logits",
    "targets",
    "router",
    "tokens",
    "saturation",
    "normalization",
    "mode",
    "latent",
    "side",
    "distribution",
    "distribution_grad",
    "curvature",
    "replica",
    "rank",
)


@dataclass(frozen=True, slots=True)
class Site:
    """A measured place.

    `name` is the one that `named_modules()` or `named_parameters()` gives, without the prefixes of
    wrappers. `order` is the position in the recorded forward pass (a parameter has that of its
    module), -1 where it never ran. `trainable` and `optimized` speak of parameters only:
    `requires_grad`, and whether any optimizer holds it. `source` is `file:line` of the module's class.

    `placement` says of a parameter how the processes of a world share it: `replicated` (each holds all
    of it), `sharded` (this one holds `local_size` elements of it, `part` number so-and-so; processes
    with the same number hold the same ones), or empty where that is not known or there is one process.
    `shape` is that of the whole.
    """

    kind: str
    name: str
    module_type: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    order: int = -1
    trainable: bool = True
    optimized: bool = True
    source: str = ""
    placement: str = ""
    part: int = 0
    local_size: int = 0

    @property
    def module(self) -> str:
        """Name of the module that the site belongs to: a parameter's owner, else the site itself."""
        if self.kind in ("initial", "weight", "grad", "update", "optimizer", "replica"):
            return self.name.rpartition(".")[0]
        return self.name

    @property
    def size(self) -> int:
        """Number of elements."""
        product = 1
        for extent in self.shape:
            product *= extent
        return product

    def to_json(self) -> dict[str, Any]:
        """Without the placement where there is none, as in most runs."""
        record = asdict(self)
        if not self.placement:
            del record["placement"], record["part"], record["local_size"]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Site:
        """Ignores keys that it does not know, so that newer runs stay readable."""
        known = {f.name: record[f.name] for f in fields(cls) if f.name in record}
        known["shape"] = tuple(known.get("shape", ()))
        return cls(**known)
