"""Each fault does what it says: checked on the training itself, without the recorder."""

from __future__ import annotations

import math

import pytest
import torch

from stabdiag.reference.model import GPT
from stabdiag.reference.train import Options, build_data, build_optimizer, loss_of, parse, train
from stabdiag.zoo import plant
from stabdiag.zoo.fault import FAULTS, SMALL


class Watched:
    """A planted training of some steps: its losses, and the norm of each gradient before each step."""

    def __init__(self, name: str, steps: int, **changed: object) -> None:
        fault = FAULTS[name]
        small = {"batch": 4, "context": 64, "width": 48, "device": "cpu", "evaluate_every": 0}
        options = parse([], **{**fault.options, **small, **changed})
        options, batches, _ = build_data(options)
        self.fault, self.schedule = fault, options
        self.model, self.optimizer, self.batches = fault.plant(options, batches)
        self.before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.gradients: list[dict[str, float | None]] = []
        self.optimizer.register_step_pre_hook(self.note)
        options = Options(**{**vars(options), "steps": steps})
        self.losses = train(options, self.model, self.optimizer, self.batches)

    def note(self, *_: object) -> None:
        gradients = {name: p.grad for name, p in self.model.named_parameters()}
        self.gradients.append({name: None if g is None else g.norm().item() for name, g in gradients.items()})

    def moved(self, prefix: str) -> float:
        """The largest change of a weight below `prefix` since the start."""
        parameters = dict(self.model.named_parameters())
        return max(
            (parameters[name] - start).abs().max().item()
            for name, start in self.before.items()
            if name.startswith(prefix)
        )


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_without_a_fault_the_small_model_learns():
    options, batches, _ = build_data(parse([], **SMALL, context=64, steps=60, evaluate_every=0, device="cpu"))
    torch.manual_seed(0)
    model = GPT(options)
    losses = train(options, model, build_optimizer(model, options), batches)
    assert losses[0] == pytest.approx(math.log(256), abs=0.1)
    assert losses[-10:].mean() < 3.1


def test_lr_too_high_raises_the_loss_far_above_its_start():
    losses = Watched("lr-too-high", 25).losses
    assert losses[1:].min() > losses[0]
    assert losses.max() > 4 * losses[0]


def test_lr_too_low_leaves_the_loss_where_it_was():
    run = Watched("lr-too-low", 40)
    assert run.losses[-5:].mean() > run.losses[:5].mean() - 0.1
    assert 0 < run.moved("blocks.0") < 1e-3


def test_unsafe_operation_is_finite_until_its_step_and_never_after():
    run = Watched("unsafe-operation", 64)
    step = run.fault.step
    assert torch.isfinite(run.losses[:step]).all()
    assert not torch.isfinite(run.losses[step:]).any()
    assert run.losses[step - 5 : step].mean() < run.losses[0] - 1


def test_bad_init_starts_far_above_a_uniform_guess():
    run = Watched("bad-init", 1)
    assert run.losses[0] > 2 * math.log(256)


def test_frozen_block_receives_gradients_and_never_moves():
    run = Watched("frozen-block", 5)
    assert run.moved("blocks.1.") == 0
    assert run.moved("blocks.0.") > 0
    assert run.gradients[0]["blocks.1.mlp.expand.weight"] > 0
    assert all(p.requires_grad for p in run.model.parameters())


def test_detached_block_keeps_gradients_from_all_before_it():
    gradients = Watched("detached-block", 3).gradients[-1]
    before = ("tokens.", "positions.", "blocks.0.", "blocks.1.")
    assert {name for name, norm in gradients.items() if norm is None} == {
        name for name in gradients if name.startswith(before)
    }


def test_forgotten_zero_grad_sums_all_gradients_since_the_beginning():
    run = Watched("forgotten-zero-grad", 3, lr=0.0, final_lr=0.0)
    held = [p.grad for p in run.model.parameters()]
    losses = [loss_of(run.model, *run.batches(i), run.schedule) for i in range(3)]
    expected = torch.autograd.grad(sum(losses), list(run.model.parameters()))
    torch.testing.assert_close(held, list(expected), rtol=1e-4, atol=1e-6)


def test_dead_relu_silences_one_layer_for_good():
    run = Watched("dead-relu", 10)
    hidden = []
    run.model.get_submodule("blocks.1.mlp.activation").register_forward_hook(lambda m, i, o: hidden.append(o))
    run.model(run.batches(0)[0])
    assert not hidden[0].any()
    assert all(norms["blocks.1.mlp.expand.weight"] == 0 for norms in run.gradients)
    assert run.gradients[-1]["blocks.0.mlp.expand.weight"] > 0


def test_vanishing_gradient_leaves_the_first_layers_next_to_nothing():
    run = Watched("vanishing-gradient", 40)
    for norms in (run.gradients[0], run.gradients[-1]):
        assert 0 < norms["blocks.0.0.weight"] < 1e-5 * norms["blocks.9.0.weight"]


def test_exploding_gradient_grows_towards_the_input():
    run = Watched("exploding-gradient", 20, clip=0.0)
    for norms in (run.gradients[0], run.gradients[-1]):
        assert norms["blocks.0.0.weight"] > 100 * norms["blocks.11.0.weight"]
        assert math.hypot(*norms.values()) > 100


def test_exploding_activation_multiplies_a_block_output_at_its_step():
    run = Watched("exploding-activation", 99)
    peak = []
    run.model.blocks[1].register_forward_hook(lambda m, i, o: peak.append(o.abs().max().item()))
    run.model(run.batches(0)[0])
    run.optimizer.step()  # the hundredth
    run.model(run.batches(0)[0])
    assert peak[1] > 20 * peak[0]


def test_shuffled_targets_renumber_each_batch_in_another_way():
    run = Watched("shuffled-targets", 1)
    _, sound, _ = build_data(run.schedule)
    inputs, targets = run.batches(3)
    true_inputs, true_targets = sound(3)
    assert torch.equal(inputs, true_inputs)
    pairs = set(zip(true_targets.flatten().tolist(), targets.flatten().tolist(), strict=True))
    assert len(pairs) == len(true_targets.unique()) == len(targets.unique())
    assert torch.equal(run.batches(3)[1], targets)
    assert not torch.equal(run.batches(4)[1][sound(4)[1] == 32], targets[true_targets == 32])


def test_corrupt_batch_is_one_batch_alone():
    run = Watched("corrupt-batch", 1)
    _, sound, _ = build_data(run.schedule)
    differs = [i for i in range(140, 160) if not torch.equal(run.batches(i)[0], sound(i)[0])]
    assert differs == [run.fault.step]
    inputs, targets = run.batches(run.fault.step)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_every_fault_says_what_it_plants_and_what_a_right_diagnosis_is():
    for fault in FAULTS:
        assert fault.doc.splitlines()[0].endswith((".", ":")), fault.id
        assert fault.roots, fault.id
        assert fault.causes, fault.id
        assert 0 <= fault.step < fault.options["steps"], fault.id


def test_every_expected_signature_and_cause_is_in_the_catalogue():
    from stabdiag.analysis.catalogue import CAUSES, SIGNATURES

    for fault in FAULTS:
        assert all(root in SIGNATURES for root in fault.roots), fault.id
        assert all(cause in CAUSES for cause in fault.causes), fault.id


def test_plant_trains_with_the_options_of_the_fault_and_of_the_command_line(capsys):
    plant.main(["dead-relu", "--steps", "2", "--context", "16", "--evaluate-every", "0"])
    assert "step 2/2" in capsys.readouterr().out


def test_plant_without_a_known_fault_lists_them():
    with pytest.raises(SystemExit, match="lr-too-high"):
        plant.main(["nonsense"])
