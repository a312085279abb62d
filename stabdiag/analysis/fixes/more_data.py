from __future__ import annotations

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("more-data", title="More data, or more variety in them")
def more_data(run: Run, finding: Finding) -> Change:
    """Adds samples, or changes those that there are by what leaves their meaning alone (crops, noise, masks).

    It costs the collecting, or a few lines in the data set. It worked when the gap between training and
    evaluation stops growing. Up to four passes over the same text cost nearly nothing.
    """
    facts, parameters = finding.facts, run.fact("model", "trainable")
    told = f"evaluations turned at step {finding.onset_step}"
    if "passes" in facts:
        told = f"{facts['distinct']:.0f} batches were passed {figure(facts['passes'])} times, where 4 "
        "are harmless"
    elif isinstance(parameters, int):
        told += f", with {figure(float(parameters))} parameters"
    return Change(
        f"add data, or augment them: {told}",
        "class Augmented(torch.utils.data.Dataset):\n"
        "    def __init__(self, dataset, noise=0.1):\n"
        "        self.dataset, self.noise = dataset, noise\n"
        "\n"
        "    def __len__(self):\n"
        "        return len(self.dataset)\n"
        "\n"
        "    def __getitem__(self, index):\n"
        "        inputs, target = self.dataset[index]\n"
        "        return inputs + self.noise * torch.randn_like(inputs), target",
    )
