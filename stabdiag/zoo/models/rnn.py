"""A plain recurrent network that continues waves."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stabdiag.zoo.architecture import architecture
from stabdiag.zoo.data.generator import held_out
from stabdiag.zoo.data.waves import waves
from stabdiag.zoo.training import Batch, Objective, Parts

LENGTH = 40


class Predictor(nn.Module):
    def __init__(self, width: int, nonlinearity: str) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, width, nonlinearity=nonlinearity, batch_first=True)
        self.readout = nn.Linear(width, 1)
        nn.init.orthogonal_(self.rnn.get_parameter("weight_hh_l0"))

    def forward(self, signal: Tensor) -> Tensor:
        hidden, _ = self.rnn(signal)
        prediction: Tensor = self.readout(hidden)
        return prediction


@architecture("rnn", "values", "recurrent", "tanh", "signals", lr=2e-3, sgd_lr=0.02, batch=32, clip=1.0)
def build(seed: int, batch: int, width: int = 48, nonlinearity: str = "tanh") -> Parts:
    """A recurrent layer with an orthogonal start, trained to predict the next value of a wave."""
    model = Predictor(width, nonlinearity)
    batches = waves(seed, batch, LENGTH, forms=False)

    def loss(data: Batch) -> Tensor:
        signal, following = data
        return F.mse_loss(model(signal), following)

    return Parts(model, [Objective(model, loss)], batches, held_out(batches), ("rnn", "readout"))
