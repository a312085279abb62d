"""Logits that are products of outputs, and of no weight of their own."""

from __future__ import annotations

from stabdiag.analysis.history import history
from stabdiag.analysis.initial import LINEAR
from stabdiag.core.run import Run


def of_similarities(run: Run) -> bool:
    """Whether the classes that the loss tells apart are samples: of the batch, or of a queue.

    A classifier has a row of weights for each class. Where there is none, or there are as many classes as
    samples in the batch and no linear layer puts the logits out, they are similarities, whose scale is a
    temperature: nothing that an initialization of weights would have made the same for all.
    """
    classes = run.fact("loss", "classes")
    outputs = {site.name: site for site in run.sites("output")}
    givers = [outputs[site.name] for site in run.sites("logits") if site.name in outputs]
    if not run.sites("initial") or any(site.module_type in LINEAR for site in givers):
        return False
    if all(classes not in site.shape for site in run.sites("initial")):
        return True
    return bool(classes == history(run, "run.samples").at(0) and givers)
