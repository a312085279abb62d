from dataclasses import replace

import numpy as np
import pytest

from stabdiag.analysis.adam import ages_at, moments
from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

RNG = np.random.default_rng
MATRICES = [Site("optimizer", f"layers.{i}.weight", "Linear", (64, 64), order=i) for i in range(4)]


def adam(beta2=0.999, eps=1e-8):
    groups = [{"lr": 1e-3, "betas": [0.9, beta2], "eps": eps}]
    return [Event("optimizer", 0.0, data={"name": "Adam", "groups": groups})]


def falling(count=400, seed=0):
    return 2.0 + 2.8 * np.exp(-np.arange(count) / 60) + 0.05 * RNG(seed).standard_normal(count)


def optimizer(count=400, every=1, beta2=0.999, sites=MATRICES, events=None, **columns):
    """A run with `optimizer.<name>` as given, else as in health."""
    steps = np.arange(0, count, every)
    usual = {"rms": 1.0, "step": 0.25, "cosine": 0.44, "eps_share": 0.0}
    series = {f"optimizer.{name}": np.full((len(steps), len(sites)), value) for name, value in usual.items()}
    loss = columns.pop("loss", falling(count))
    series |= {f"optimizer.{name}": values for name, values in columns.items()}
    series["run.loss"] = loss
    return run_of(
        series, sites={"optimizer": sites}, steps={"optimizer": steps}, events=events or adam(beta2)
    )


def only(name, run):
    (finding,) = SIGNATURES[name](run)
    return finding


def none(name, run):
    return list(SIGNATURES[name](run)) == []


def spiked(at, value, length=10, site=2, count=400):
    values = np.ones((count, 4))
    values[at : at + length, site] = value
    return values


def risen(at, length=30, by=1.5):
    loss = falling()
    loss[at : at + length] += by
    return loss


def test_a_stale_moment_is_told_where_and_when_it_moved_before_the_loss():
    run = optimizer(rms=spiked(250, 25.0), loss=risen(253))
    finding = only("adam-stale-second-moment", run)
    assert (finding.onset_step, finding.sites) == (250, ("layers.2.weight",))
    assert finding.severity == Severity.warning


def test_a_stale_moment_that_follows_the_loss_is_no_cause_of_it():
    run = optimizer(rms=spiked(260, 25.0), loss=risen(250, 40))
    assert only("adam-stale-second-moment", run).severity == Severity.info


@pytest.mark.parametrize(("grown", "told"), [(253, False), (251, True)])
def test_updates_between_two_records_follow_the_loss_where_it_rose_before_the_gradient(grown, told):
    rms = np.ones((80, 4))
    rms[51:56, 2] = 25.0
    gradient = np.ones((400, 4))
    gradient[grown : grown + 40] = 30.0
    sites = {"optimizer": MATRICES, "grad": [replace(site, kind="grad") for site in MATRICES]}
    series = {"optimizer.rms": rms, "optimizer.step": np.full((80, 4), 0.25)}
    series |= {"run.loss": risen(252, 40), "grad.norm": gradient}
    steps = {"optimizer": np.arange(0, 400, 5)}
    assert (
        none("adam-stale-second-moment", run_of(series, sites=sites, steps=steps, events=adam(0.999))) != told
    )


def test_how_far_a_moment_may_lag_depends_on_its_memory():
    for beta2, least in ((0.999, 8.96), (0.95, 2.7)):
        below = optimizer(rms=spiked(250, 0.95 * least), loss=risen(253), beta2=beta2)
        above = optimizer(rms=spiked(250, 1.05 * least), loss=risen(253), beta2=beta2)
        assert none("adam-stale-second-moment", below)
        assert not none("adam-stale-second-moment", above)


def test_of_moments_whose_lag_the_loss_bore_the_one_that_lagged_most_is_told():
    rms = np.maximum(spiked(150, 12.0, site=1), spiked(250, 20.0, site=2))
    finding = only("adam-stale-second-moment", optimizer(rms=rms))
    assert (finding.onset_step, finding.sites) == (250, ("layers.2.weight",))


def test_one_recorded_step_makes_no_stale_moment():
    assert none("adam-stale-second-moment", optimizer(rms=spiked(250, 25.0, length=1), loss=risen(253)))


def test_updates_that_are_long_from_the_start_have_not_jumped():
    run = optimizer(step=np.full((400, 4), 0.7), loss=risen(253))
    assert none("adam-stale-second-moment", run)


def test_vectors_are_left_out_of_what_is_said_of_moments():
    sites = [*MATRICES[:3], Site("optimizer", "layers.3.bias", "Linear", (64,), order=3)]
    run = optimizer(rms=spiked(250, 25.0, site=3), loss=risen(253), sites=sites)
    assert none("adam-stale-second-moment", run)
    assert moments(run, "rms").names == ("layers.0.weight", "layers.1.weight", "layers.2.weight")


def test_a_fresh_state_is_left_to_settle_wherever_it_begins():
    ages = np.r_[1:201, 1:201].astype(float)
    steps = np.arange(400)
    run = run_of(
        {"run.optimizer_age": ages, "optimizer.rms": np.ones((400, 4))}, sites={"optimizer": MATRICES}
    )
    assert ages_at(run, steps).tolist() == ages.tolist()
    assert moments(run, "rms").steps.tolist() == [*range(50, 200), *range(250, 400)]


def test_epsilon_dominates_the_share_of_weights_that_it_is_told_of():
    share, step = np.zeros((400, 4)), np.full((400, 4), 0.25)
    share[:, :3], step[:, :3] = 0.9, 0.03
    finding = only("adam-eps-dominated", optimizer(eps_share=share, step=step))
    assert finding.facts["matrices"] == pytest.approx(0.75)
    assert finding.severity == Severity.warning
    assert set(finding.sites) == {f"layers.{i}.weight" for i in range(3)}


def named(name, **group):
    return [Event("optimizer", 0.0, data={"name": name, "family": name, "groups": [group]})]


def test_epsilon_dominates_by_what_the_optimizer_makes_of_noise():
    share = np.full((400, 4), 0.9)
    for name, short, usual in (("Adam", 0.09, 0.11), ("NAdam", 0.24, 0.28), ("RMSprop", 0.42, 0.45)):
        for step, told in ((short, True), (usual, False)):
            run = optimizer(eps_share=share, step=np.full((400, 4), step), events=named(name, eps=1e-2))
            found = list(SIGNATURES["adam-eps-dominated"](run))
            assert bool(found) == told, (name, step)
            assert all(f"Updates of {name} are only" in finding.message for finding in found)


def test_epsilon_dominates_since_the_first_steps_where_it_did_so_in_them():
    share, step = np.full((400, 4), 0.9), np.full((400, 4), 0.03)
    assert only("adam-eps-dominated", optimizer(eps_share=share, step=step)).onset_step == 0
    share[:20] = 0.0
    assert only("adam-eps-dominated", optimizer(eps_share=share, step=step)).onset_step == 20
    share[:200] = 0.0
    assert only("adam-eps-dominated", optimizer(eps_share=share, step=step)).onset_step == 200


def test_epsilon_dominates_since_the_updates_are_short_in_steps_that_are_judged():
    share, step = np.full((400, 4), 0.9), np.full((400, 4), 0.25)
    step[200:] = 0.03
    assert only("adam-eps-dominated", optimizer(eps_share=share, step=step)).onset_step == 200


def test_rows_without_a_gradient_do_not_count_as_dominated_by_epsilon():
    share, step = np.full((400, 4), 0.9), np.full((400, 4), 0.25 * np.sqrt(0.1))
    run = optimizer(eps_share=share, step=step)
    assert not none("adam-eps-dominated", run)
    dead = run_of(
        {**{s: run.table(s).values for s in run.series}, "grad.dead": np.full((400, 4), 0.9)},
        sites={"optimizer": MATRICES, "grad": [s.name for s in MATRICES]},
        events=adam(),
    )
    assert none("adam-eps-dominated", dead)


def test_updates_of_one_way_are_told_of_their_matrix_while_the_others_are_as_usual():
    step, cosine = np.full((400, 4), 0.25), np.full((400, 4), 0.44)
    step[200:, 1], cosine[200:, 1] = 1.0, 0.98
    finding = only("adam-correlated-update", optimizer(step=step, cosine=cosine))
    assert (finding.onset_step, finding.sites) == (200, ("layers.1.weight",))
    everywhere = optimizer(step=np.full((400, 4), 1.0), cosine=np.full((400, 4), 0.98))
    assert none("adam-correlated-update", everywhere)


def test_updates_that_are_whole_in_health_are_not_judged_by_their_length():
    step, cosine = np.full((400, 4), 0.25), np.full((400, 4), 0.44)
    step[200:, 1], cosine[200:, 1] = 1.0, 0.98
    for events in (named("NAdam"), named("RMSprop", momentum=0.0), named("Adam", betas=[0.0, 0.999])):
        with pytest.raises(NotEvaluable, match="as long for noise"):
            list(SIGNATURES["adam-correlated-update"](optimizer(step=step, cosine=cosine, events=events)))
    with_momentum = optimizer(step=10 * step, cosine=cosine, events=named("RMSprop", momentum=0.9))
    assert only("adam-correlated-update", with_momentum).facts["update_rms"] == pytest.approx(1.0)


def test_of_an_optimizer_without_a_second_moment_nothing_is_judged():
    for name in ("adam-stale-second-moment", "adam-eps-dominated", "adam-correlated-update"):
        with pytest.raises(NotEvaluable, match="no second moment is known of SGD"):
            list(SIGNATURES[name](optimizer(events=named("SGD"))))


def test_a_stale_moment_of_what_does_not_average_is_told_by_its_lag_alone():
    step = np.where(spiked(250, 2.0) > 1, 2.0, 1.0)
    longer = optimizer(step=step, loss=risen(253), events=named("RMSprop", alpha=0.99))
    assert none("adam-stale-second-moment", longer)
    stale = optimizer(rms=spiked(250, 7.0), loss=risen(253), events=named("RMSprop", alpha=0.99))
    finding = only("adam-stale-second-moment", stale)
    assert "RMSprop's second moment" in finding.message
    assert finding.facts["beta2"] == pytest.approx(0.99)
    assert none("adam-stale-second-moment", optimizer(rms=spiked(250, 5.0), events=named("RMSprop")))


def aged(ages, loss=None, **more):
    return run_of({"run.optimizer_age": ages, "run.loss": falling() if loss is None else loss, **more})


def test_a_lost_state_is_dated_by_the_first_step_of_the_new_one():
    finding = only("optimizer-state-lost", aged(np.r_[1:201, 1:201], loss=risen(201, 20)))
    assert (finding.value, finding.threshold) == (200.0, 20.0)
    assert finding.onset_step == 200
    assert finding.facts["age_before"] == 200
    assert finding.severity == Severity.warning


def test_an_age_that_was_recorded_now_and_then_tells_the_same():
    ages = np.r_[1:201, 1:201].astype(float)
    ages[np.arange(400) % 7 != 0] = np.nan
    finding = only("optimizer-state-lost", aged(ages))
    assert 200 <= finding.onset_step <= 206


def test_withheld_steps_do_not_make_an_optimizer_young():
    ages = np.arange(1.0, 401.0)
    skipped = np.zeros(400)
    ages[100:110], skipped[100:110] = 100.0, 1.0
    ages[110:] -= 10
    assert none("optimizer-state-lost", aged(ages, **{"run.skipped": skipped}))


def test_an_optimizer_without_a_state_is_not_judged():
    with pytest.raises(NotEvaluable, match="no state"):
        list(SIGNATURES["optimizer-state-lost"](aged(np.full(400, np.nan))))


TABLES = [
    Site("grad", "tokens.weight", "Embedding", (128, 48), order=0),
    Site("grad", "layers.0.weight", "Linear", (48, 48), order=1),
]


def test_an_embedding_is_named_at_the_step_of_its_burst():
    norms = np.full((400, 2), 0.5) * np.exp(0.1 * RNG(0).standard_normal((400, 2)))
    norms[300, 0] *= 30
    run = run_of({"grad.norm": norms, "run.loss": risen(301, 15)}, sites={"grad": TABLES})
    finding = only("embedding-gradient-spike", run)
    assert (finding.sites, finding.onset_step) == (("tokens.weight",), 300)
    assert finding.facts["growth"] == pytest.approx(30, rel=0.3)


def test_a_model_without_an_embedding_is_not_judged_by_one():
    run = run_of({"grad.norm": np.ones((400, 1))}, sites={"grad": TABLES[1:]})
    with pytest.raises(NotEvaluable, match="no embedding"):
        list(SIGNATURES["embedding-gradient-spike"](run))


def test_what_is_measured_is_what_passed_its_threshold():
    for rms, step in ((25.0, 0.25), (4.0, 1.8)):
        series = {"rms": spiked(250, rms), "step": np.where(spiked(250, 9.0) > 1, step, 0.25)}
        finding = only("adam-stale-second-moment", optimizer(**series, loss=risen(253)))
        assert finding.value > finding.threshold
        assert finding.value == pytest.approx(rms if rms > 9 else step)
