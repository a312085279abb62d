from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("reshuffle-data", title="Shuffle anew in each epoch, and go on where the sampler was")
def reshuffle_data(run: Run, finding: Finding) -> Change:
    """Draws a new order for each pass, gives each worker a seed of its own, and saves the sampler's place.

    It costs nothing but the order of earlier runs. It worked when `batch.fingerprint` repeats no more than
    the number of passes tells, and no process is the slowest for long. In the Hugging Face Trainer the
    sampler's place is restored unless `ignore_data_skip` is set; in Lightning save `datamodule.state_dict()`.
    """
    facts = finding.facts
    if "waste" in facts:
        return Change(
            f"deal samples of like length out to all processes: rank {facts['rank']:.0f} works "
            f"{figure(1e3 * facts['excess'])} ms longer at each step; if its data are like the others', "
            "look at its machine",
            "order = sorted(range(len(dataset)), key=lambda i: len(dataset[i][0]))\n"
            "share = order[rank::world_size]  # neighbours in length go to different processes",
        )
    told = "batches came again"
    if "repeated" in facts:
        told = f"{facts['distinct']:.0f} different batches came {figure(facts['passes'])} times each"
        told += f", the first again at step {facts['first_repeat']:.0f}"
    if "mixed" in facts:
        told = f"the targets of one batch vary by {facts['mixed']:.0%} of what all vary by"
    return Change(
        f"shuffle with a new seed in each epoch, and restore the sampler on resume: {told}",
        "def loader_of(epoch):\n"
        "    generator = torch.Generator().manual_seed(epoch)\n"
        "    return torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, generator=generator)\n"
        "\n"
        "# with a DistributedSampler:\n"
        "sampler.set_epoch(epoch)",
    )
