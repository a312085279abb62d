"""What is told of long trainings that are healthy, as a user would record them.

    python benchmarks/long_runs.py [--steps 10000] [--folder long-runs] [ARCHITECTURE:OPTIMIZER]...

Each architecture of the zoo, with an optimizer that suits it, under the default budget. What is recorded
already is not recorded again. Prints every finding above `info`: with healthy trainings there should be none.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

import stabdiag
from stabdiag.core.finding import Severity
from stabdiag.zoo.architecture import ARCHITECTURES

SEED = 77
USUAL = (
    *(
        "regression:adamw",
        "mlp:sgd",
        "gru:adamw-999",
        "vit:adamw-999",
        "llama:adamw",
        "gpt:muon",
        "resnet:sgd",
    ),
    *(
        "resnet:sgd",
        "graph:adam",
        "vae:adam",
        "ssm:rmsprop",
        "two-tower:nadam",
        "lstm:adafactor",
        "conv:lion",
    ),
    *("denoiser:adamw", "gan:adam", "encoder:adam"),
)


def record(architecture: str, optimizer: str, steps: int, folder: Path) -> Path:
    path = folder / f"{architecture}--{optimizer}--{steps}"
    if not path.is_dir():
        training = ARCHITECTURES[architecture].training(optimizer, SEED, steps=steps)
        training.prepare()
        with stabdiag.watch(training.model, training.optimizers, log_dir=folder, name=path.name):
            training.run()
    return path


@click.command()
@click.option("--steps", default=10_000)
@click.option("--folder", default="long-runs", type=click.Path(path_type=Path))
@click.argument("pairs", nargs=-1)
def main(steps: int, folder: Path, pairs: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    told = 0
    for pair in pairs or USUAL:
        run = stabdiag.load(record(*pair.split(":"), steps, folder))
        findings = [f for f in stabdiag.diagnose(run).findings if f.severity > Severity.info]
        told += len(findings)
        print(f"{pair:24}{run.steps:8} steps", *(f"\n    {f.severity.name} {f.message}" for f in findings))
    print(f"{told} findings above info in {len(pairs or USUAL) * steps:,} steps")


if __name__ == "__main__":
    main()
