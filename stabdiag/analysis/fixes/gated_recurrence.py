from __future__ import annotations

from stabdiag.analysis.anatomy import modules
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("gated-recurrence", title="Use a gated recurrence")
def gated_recurrence(run: Run, finding: Finding) -> Change | None:
    """Replaces a plain RNN by an LSTM whose forget gate starts open, so that the state is carried on.

    It costs four times the recurrent weights, and a retraining. It worked when the gradient norm no
    longer jumps by orders of magnitude.
    """
    plain = {name: kind for name, kind in modules(run).items() if kind in ("RNN", "RNNCell")}
    if not plain:
        return None
    name, kind = next(iter(plain.items()))
    gated = "LSTM" if kind == "RNN" else "LSTMCell"
    return Change(
        f"{gated} instead of {kind} at {name}, with a forget-gate bias of 1",
        f"rnn = torch.nn.{gated}(input_size, hidden_size)\n"
        "for parameter_name, parameter in rnn.named_parameters():\n"
        '    if "bias_ih" in parameter_name:\n'
        "        torch.nn.init.ones_(parameter[hidden_size : 2 * hidden_size])",
    )
