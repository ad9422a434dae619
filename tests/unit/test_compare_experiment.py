"""What a whole experiment asks for, trained by a formula in the place of nets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from searchae.compare.base_names import base_names
from searchae.compare.bases import SearchedTrial, SearchedTrials, choose_factor
from searchae.compare.cells import FINAL_SEED, FINAL_SHARE, CellMaker, Schedule
from searchae.compare.experiment import FAILED_SEEDS, GIVE_UP_BASES, Experiment
from searchae.compare.matched_design import FIRST_SEEDS, Limits
from searchae.compare.matched_statistics import analyse
from searchae.compare.penalty_curve import PenaltyExperiment
from searchae.compare.tuning import FINAL_TRAININGS, TRIES, Final, Grid, Point, Score, final_round
from searchae.config import spec_from_document
from searchae.retrain.list_run import TrainingResult
from searchae.study.listed_training import ListedTraining
from searchae.worker.training_record import TrainingRecord
from tests.unit.test_compare_bases import parameter, spec, trial, trials
from tests.unit.test_compare_verdict import IMAGES, record

BASELINE_DB = 14.0
SPEC = spec()
FOUND = trials(trial(0, 25.0, "relu", "adam", rate=3e-3), trial(1, 24.0, "tanh", "adam"))
Quality = Callable[[ListedTraining], float]


class World:
    """Experiments on one study whose trainings' PSNR is given by a formula, in dB."""

    def __init__(self, quality: Quality, *, found: SearchedTrials = FOUND) -> None:
        self.quality, self.found = quality, found
        self.trained: dict[str, ListedTraining] = {}
        self.results: dict[str, TrainingResult] = {}

    def experiment(self, name: str, *, until_db: float = 0.3) -> Experiment:
        schedule = Schedule(epochs=None, patience=None, precision="fp32", first_seed=1)
        factor = choose_factor(SPEC, parameter(SPEC, name), self.found)
        trains_db = BASELINE_DB + 1
        return Experiment(
            factor,
            CellMaker(SPEC, factor, self.found.good, schedule, trains_db=trains_db),
            Limits(until_db, bases=len(factor.bases)),
            baseline_db=np.full(IMAGES, BASELINE_DB),
            read=self.read,
            base_names=base_names(factor.bases, SPEC, [factor.parameter.key, *factor.tuned]),
            least_db=17.0,
        )

    def read(self, key: str) -> TrainingRecord:
        training = self.trained[key]
        psnr_db = self.quality(training)
        by_image = psnr_db + np.linspace(-3, 3, IMAGES)
        return replace(record(1, training.seed, psnr_db), psnr_db=by_image)

    def run(self, experiment: Experiment) -> None:
        """Trains until nothing more is wanted."""
        for _ in range(100):
            missing = [
                t for t in experiment.wanted(self.results).trainings if t.key not in self.trained
            ]
            if not missing:
                return
            self.train(missing)
        raise AssertionError("it does not end")

    def train(self, trainings: Sequence[ListedTraining]) -> None:
        for training in trainings:
            psnr_db = self.quality(training)
            self.trained[training.key] = training
            self.results[training.key] = TrainingResult(
                number=len(self.trained),
                is_finished=True,
                is_pruned=False,
                outcome="",
                curve={1: psnr_db},
                psnr_db=psnr_db,
            )

    def tries(self, **values: str) -> list[ListedTraining]:
        return [
            t
            for t in self.trained.values()
            if not t.is_tested and values.items() <= dict(t.values).items()
        ]

    def measured(self, **values: str) -> list[ListedTraining]:
        return [
            t
            for t in self.trained.values()
            if t.is_tested and values.items() <= dict(t.values).items()
        ]


def noise_db(training: ListedTraining) -> float:
    draw = np.random.default_rng(int(training.key, 16))
    return 0.1 * float(draw.normal())


def learns(training: ListedTraining) -> float:
    """Best at a rate of 0.003; tanh is 2 dB better; the rest makes no difference."""
    level = 27.0 if training.values["activation"] == "tanh" else 25.0
    off = abs(math.log10(training.params.train.learning_rate / 3e-3))
    return max(level - 4 * off, BASELINE_DB) + noise_db(training)


def test_three_parameters_share_their_nets() -> None:
    """2 x 2 x 2 choices are 8 nets, whichever parameter asks."""
    world = World(learns)
    for name in ("regularizer", "activation", "optimizer"):
        world.run(world.experiment(name, until_db=1.0))
    nets = {tuple(sorted(t.values.items())) for t in world.measured()}
    assert len(nets) == 8
    alone = World(learns)
    alone.run(alone.experiment("regularizer", until_db=1.0))
    assert len(world.tries()) <= 1.2 * len(alone.tries())


def test_a_difference_is_found_and_what_makes_none_shows_none() -> None:
    world = World(learns)
    for name, shown in (("activation", True), ("optimizer", False)):
        experiment = world.experiment(name)
        world.run(experiment)
        look = experiment.wanted(world.results).looks[-1]
        (pair,) = analyse(experiment.matched(look, world.results)).pairs
        assert pair.shown == shown
        assert pair.half_width_db <= 0.3
    assert pair.low_db < 0 < pair.high_db


def without_sgd(training: ListedTraining) -> float:
    return BASELINE_DB if training.values["optimizer"] == "sgd" else learns(training)


def test_a_choice_that_learns_nothing_is_not_tried_for_ever() -> None:
    world = World(without_sgd)
    experiment = world.experiment("optimizer", until_db=0.2)
    world.run(experiment)
    tries = world.tries(optimizer="sgd")
    rates = {round(math.log10(t.params.train.learning_rate), 2) for t in tries}
    assert {-4.0, -3.0, -2.0, -1.0} <= rates, "no decade is left out"
    bases = {(t.values["activation"], t.values["regularizer"]) for t in tries}
    assert len(bases) == GIVE_UP_BASES
    assert len(tries) <= GIVE_UP_BASES * (TRIES + FINAL_TRAININGS)
    assert all(t.values["momentum"] == tries[0].values["momentum"] for t in tries)
    assert len(world.measured(optimizer="sgd")) == GIVE_UP_BASES * FAILED_SEEDS
    look = experiment.wanted(world.results).looks[-1]
    verdict = analyse(experiment.matched(look, world.results))
    (pair,) = verdict.pairs
    assert pair.shown
    assert verdict.choices[verdict.best].name == "adam"
    assert not verdict.choices[1].trains


def test_another_parameter_passes_over_bases_with_it() -> None:
    world = World(without_sgd)
    world.run(world.experiment("optimizer"))
    experiment = world.experiment("activation", until_db=0.5)
    world.run(experiment)
    look = experiment.wanted(world.results).looks[-1]
    used = experiment.used_bases(look.bases, world.results)
    assert {experiment.bases[b] for b in used} == {"adam clip", "adam clip+l1"}
    assert experiment.matched(look, world.results).population == 2, "all that are of use"
    assert not world.measured(optimizer="sgd")[FAILED_SEEDS * 4 :]


def test_other_parameters_skip_bases_with_a_choice_that_was_given_up() -> None:
    """sgd learns a little, and comes to less than half of what the others gain."""

    def quality(training: ListedTraining) -> float:
        return 15.5 if training.values["optimizer"] == "sgd" else learns(training)

    world = World(quality)
    optimizer = world.experiment("optimizer")
    world.run(optimizer)
    assert optimizer.given_up(world.results) == {("train.optimizer", "sgd")}
    tries = len(world.tries(optimizer="sgd"))
    bases = {
        (t.values["activation"], t.values["regularizer"]) for t in world.tries(optimizer="sgd")
    }
    assert len(bases) == GIVE_UP_BASES
    activation = world.experiment("activation", until_db=0.5)
    activation.skip(optimizer.given_up(world.results))
    world.run(activation)
    assert len(world.tries(optimizer="sgd")) == tries
    look = activation.wanted(world.results).looks[-1]
    assert activation.matched(look, world.results).population == 2, "all that are of use"


def test_the_plan_depends_on_the_results_alone() -> None:
    world = World(without_sgd)
    world.run(world.experiment("optimizer"))
    fresh = world.experiment("optimizer")
    again = fresh.wanted(world.results)
    assert again.design is None
    assert {t.key for t in again.trainings} == set(world.trained)


def test_a_base_of_no_use_is_not_unseen_where_a_choice_was_given_up_before() -> None:
    def quality(training: ListedTraining) -> float:
        values = training.values
        if (values["activation"], values["regularizer"]) == ("relu", "clip+l1"):
            return BASELINE_DB
        return without_sgd(training) + 5 * noise_db(training)

    world = World(quality)
    experiment = world.experiment("optimizer", until_db=0.6)
    world.run(experiment)
    assert not world.tries(activation="relu", regularizer="clip+l1", optimizer="sgd")
    wanted = experiment.wanted(world.results)
    look, step = wanted.looks[-1], wanted.step
    assert step is not None
    assert look.bases == experiment.matched(look, world.results).population == 3


def test_seeds_are_added_where_all_bases_are_taken() -> None:
    world = World(lambda t: without_sgd(t) + 4 * noise_db(t))
    experiment = world.experiment("activation", until_db=0.75)
    world.run(experiment)
    wanted = experiment.wanted(world.results)
    assert wanted.step is not None
    assert (wanted.looks[-1].bases, wanted.step.out_of_reach) == (2, ())
    assert wanted.looks[-1].seeds > FIRST_SEEDS
    assert (wanted.step.half_width_db or 9.0) <= 0.75


def test_a_failed_training_does_not_make_the_penalty_look_good() -> None:
    """The penalty costs 1 dB at 1e-2 and buys nothing; one training without it fails."""

    def quality(training: ListedTraining) -> float:
        values = training.values
        without = values["regularizer"] == "clip"
        if without and training.is_tested and training.seed == 1 and values["activation"] == "relu":
            return BASELINE_DB
        weight = 0.0 if without else training.params.train.l1_weight
        return learns(training) - (1.0 if weight > 5e-3 else 0.0)

    world = World(quality)
    experiment = world.experiment("regularizer", until_db=0.5)
    world.run(experiment)
    look = experiment.wanted(world.results).looks[-1]
    penalty = PenaltyExperiment(experiment, parameter(SPEC, "l1_weight"))
    world.train(penalty.wanted(look, world.results))
    curve = penalty.curve(look, world.results, world.read)
    assert curve is not None
    none, *_, heavy = curve.points
    assert none.psnr_db > 24, "without the failed training"
    assert heavy.gain_db == pytest.approx(-1, abs=0.2)
    assert heavy.high_db < 0
    assert heavy.is_dominated
    assert all(gain is not None for p in curve.points[1:] for gain in p.by_base_db)


def test_a_regularizer_that_fails_everywhere_has_no_curve_and_does_not_stop_the_rest() -> None:
    world = World(lambda t: BASELINE_DB if t.values["regularizer"] == "clip" else learns(t))
    experiment = world.experiment("regularizer")
    world.run(experiment)
    look = experiment.wanted(world.results).looks[-1]
    penalty = PenaltyExperiment(experiment, parameter(SPEC, "l1_weight"))
    world.train(penalty.wanted(look, world.results))
    curve = penalty.curve(look, world.results, world.read)
    assert curve is None or all(
        gain_db is not None for p in curve.points[1:] for gain_db in p.by_base_db
    )


def test_one_training_at_a_time_in_any_order_comes_to_the_same() -> None:
    """As several workers and a process that is started again for each training do it."""
    whole = World(without_sgd)
    whole.run(whole.experiment("optimizer"))
    draw = np.random.default_rng(0)
    for _ in range(2):
        world = World(without_sgd)
        while True:
            wanted = world.experiment("optimizer").wanted(world.results)
            missing = [t for t in wanted.trainings if t.key not in world.trained]
            if not missing:
                break
            world.train([missing[draw.integers(len(missing))]])
        assert wanted.design is None
        assert set(world.trained) == set(whole.trained), "nothing was trained in vain"


def test_a_limit_counts_shared_trainings_once() -> None:
    world = World(lambda t: learns(t) + 4 * noise_db(t))
    first = world.experiment("regularizer", until_db=0.3)
    world.run(first)
    others = set(world.trained)
    second = world.experiment("optimizer", until_db=0.3)
    wanted = second.wanted(world.results, others=others, limit=len(others) + 5)
    assert len(wanted.looks) > 1, "its nets are the first one's"
    alone = second.wanted(world.results, limit=5)
    assert alone.looks == wanted.looks, "what is complete is not taken back"


def finals(world: World) -> dict[tuple[str, ...], set[float]]:
    """The learning rates of each net's final."""
    rates: dict[tuple[str, ...], set[float]] = {}
    for training in world.tries():
        if training.seed > FINAL_SEED:
            net = tuple(training.values[n] for n in ("activation", "optimizer", "regularizer"))
            rates.setdefault(net, set()).add(training.params.train.learning_rate)
    return rates


def test_a_final_has_different_learning_rates() -> None:
    """The weight of the penalty makes no difference here, so the best rate has several points."""
    world = World(learns)
    world.run(world.experiment("regularizer", until_db=1.0))
    rates = finals(world)
    assert len(rates) == 8
    assert {len(found) for found in rates.values()} <= {2, 3, 4}


def is_short(training: ListedTraining) -> bool:
    return training.params.train.epochs < FINAL_SHARE * SPEC.epochs


def test_a_rate_that_is_best_in_short_tries_alone_is_not_taken() -> None:
    """At full length a rate ten times as low is best."""

    def quality(training: ListedTraining) -> float:
        off = math.log10(training.params.train.learning_rate / 1e-3)
        return 25.0 - 4 * abs(off - is_short(training)) + noise_db(training)

    world = World(quality)
    world.run(world.experiment("regularizer", until_db=1.0))
    rates = {t.params.train.learning_rate for t in world.measured()}
    assert all(abs(math.log10(rate / 1e-3)) < 0.6 for rate in rates), rates


def test_the_final_has_the_rate_of_the_search() -> None:
    """A good trial has a rate that does badly in a short try with the search's seed."""

    def quality(training: ListedTraining) -> float:
        known = abs(math.log10(training.params.train.learning_rate / 3e-3)) < 0.1
        if known:
            return 14.5 if is_short(training) else 27.0
        return 24.0 + noise_db(training)

    world = World(quality, found=trials(trial(0, 27.0, "relu", "adam", rate=3e-3)))
    world.run(world.experiment("activation", until_db=1.0))
    own = world.measured(activation="relu", optimizer="adam", regularizer="clip")
    assert own
    assert all(t.params.train.learning_rate == pytest.approx(3.162e-3) for t in own)


def test_a_try_that_was_stopped_early_wins_over_those_that_diverged() -> None:
    """High rates are good at first and diverge, so that the low ones were stopped early."""
    rate = Grid.of(parameter(SPEC, "learning_rate"))
    high, good, low = (rate.index(r) for r in (1e-2, 1e-3, 1e-4))
    tried: dict[Point, Score] = {
        (high,): (True, -math.inf),
        (good,): (False, 24.0),
        (low,): (False, 22.0),
    }
    known: dict[Point, float] = {(good,): 27.0, (low,): 25.0, (high,): -math.inf}
    found = final_round([rate], (high,), tried, lambda p, _: known.get(p), trains_db=15.0)
    assert found.best == (good,)
    assert set(found.wanted) >= {(good,), (low,)}


def test_two_close_rates_get_a_second_seed_and_the_better_mean_wins() -> None:
    rate = Grid.of(parameter(SPEC, "learning_rate"))
    high, good, low = ((rate.index(r),) for r in (1e-2, 1e-3, 1e-4))
    tried: dict[Point, Score] = dict.fromkeys((high, good, low), (True, 20.0))
    first: dict[Point, float] = {high: 26.9, good: 27.0, low: 24.0}

    def final(second: dict[Point, float]) -> Final:
        def score(point: Point, number: int) -> float | None:
            return (first, second)[number].get(point)

        return final_round([rate], good, tried, score, trains_db=15.0)

    waiting = final({good: 26.0})
    assert waiting.best is None
    assert set(waiting.again) == {good, high}
    done = final({good: 26.0, high: 26.8})
    assert done.best == high
    assert done.scores == {good: (26.5, 2), high: (26.85, 2), low: (24.0, 1)}
    first[high] = 25.9
    assert final({}).again == (good,), "far enough ahead; it has to train with a second seed"
    assert final({good: 24.0}).best == good


def test_a_rate_that_trains_with_one_seed_only_gives_way_to_the_next_best() -> None:
    rate = Grid.of(parameter(SPEC, "learning_rate"))
    high, good, low = ((rate.index(r),) for r in (1e-2, 3.2e-3, 1e-3))
    tried: dict[Point, Score] = dict.fromkeys((high, good, low), (True, 20.0))
    first: dict[Point, float] = {high: 27.0, good: 25.5, low: 24.0}

    def final(second: dict[Point, float]) -> Final:
        def score(point: Point, number: int) -> float | None:
            return (first, second)[number].get(point)

        return final_round([rate], good, tried, score, trains_db=15.0)

    assert final({high: -math.inf}).again == (high, good), "the next best is asked as well"
    found = final({high: -math.inf, good: 25.0})
    assert found.best == good
    assert found.scores[high] == (-math.inf, 2)
    assert final({high: 10.0, good: 11.0, low: 24.0}).best == low
    lower, lowest = ((rate.index(r),) for r in (3.2e-4, 1e-4))
    failed: dict[Point, float] = {high: 10.0, good: 11.0, low: 12.0}
    assert final(failed).wanted == (high, good, low, lower), "none trains with both: a lower rate"
    first[lower] = 23.0
    assert final(failed).again[-1] == lower
    assert final({**failed, lower: 22.5}).best == lower
    assert final({**failed, lower: 10.0}).wanted[-1] == lowest
    first[lowest] = 9.0
    assert final({**failed, lower: 10.0}).best == high, "none does in five"


def test_where_tries_learn_and_no_longer_training_does_lower_rates_are_trained() -> None:
    """On MNIST, clipped ReLU nets learned at three rates with one seed and at none with another."""
    rate = Grid.of(parameter(SPEC, "learning_rate"))
    high, good, low = ((rate.index(r),) for r in (1e-2, 5.6e-3, 3.2e-3))
    tried: dict[Point, Score] = dict.fromkeys((high, good, low), (True, 20.0))
    known: dict[Point, float] = dict.fromkeys((high, good, low), 9.99)

    def final(second: dict[Point, float]) -> Final:
        return final_round(
            [rate], good, tried, lambda p, n: (known, second)[n].get(p), trains_db=15.0
        )

    lower = (rate.index(1e-3),)
    assert final({}).wanted == (high, good, low, lower)
    known[lower] = 24.0
    lowest = (rate.index(3.2e-4),)
    assert final({}).wanted[-1] == lowest, "the lowest rate wins, so a lower one joins"
    known[lowest] = 22.0
    assert final({}).again == (lower,)
    assert final({lower: 23.0}).best == lower
    known[lower] = known[lowest] = 9.99
    assert final({}).best == high, "none learns in five"
    hopeless: dict[Point, Score] = dict.fromkeys((high, good, low), (True, 10.0))
    waits = final_round([rate], good, hopeless, lambda p, _: known.get(p), trains_db=15.0)
    assert len(waits.wanted) == 2, "nor has any try: nothing is added"


def test_beside_a_rate_that_learns_late_others_are_trained() -> None:
    """On MNIST, ReLU nets with RMSprop learned late at the lowest rate, and better above it."""
    rate = Grid.of(parameter(SPEC, "learning_rate"))
    lowest, start = (rate.lowest,), (rate.index(1e-2),)
    tried: dict[Point, Score] = {lowest: (True, 12.0), start: (True, 10.0)}
    known: dict[Point, float] = {lowest: 16.0, start: 10.0}

    def final() -> Final:
        return final_round([rate], start, tried, lambda p, _: known.get(p), trains_db=15.0)

    above, further = (rate.lowest + 1,), (rate.lowest + 2,)
    assert final().wanted == (lowest, start, above)
    known[above] = 17.0
    assert final().wanted[-1] == further, "the better one has another neighbour"
    known[further] = 10.0
    assert final().best == above


def test_what_is_only_listed_in_a_base_of_no_use_is_not_wanted() -> None:
    """Whatever has been listed meanwhile: the plan follows from what has ended."""

    def quality(training: ListedTraining) -> float:
        return 15.5 if training.values["optimizer"] == "sgd" else learns(training)

    world = World(quality)
    experiment = world.experiment("activation", until_db=0.5)
    world.run(experiment)
    expected = experiment.wanted(world.results)
    waiting = TrainingResult(
        number=999, is_finished=False, is_pruned=False, outcome="", curve={}, psnr_db=None
    )
    for row in experiment.cells:
        for cell in row:
            best = cell.tuned(world.results).best
            if best is not None and cell.values["train.optimizer"] == "sgd":
                world.results.setdefault(cell.measured(best, 0).key, waiting)
    assert waiting in world.results.values()
    again = world.experiment("activation", until_db=0.5).wanted(world.results)
    assert (again.looks, again.design) == (expected.looks, None)
    assert {t.key for t in again.trainings} == {t.key for t in expected.trainings}


def test_a_net_that_begins_late_is_not_given_up() -> None:
    """sgd learns, but not within the epochs of a short try."""

    def quality(training: ListedTraining) -> float:
        if training.values["optimizer"] == "sgd" and is_short(training):
            return BASELINE_DB
        return learns(training)

    world = World(quality)
    experiment = world.experiment("optimizer", until_db=1.0)
    world.run(experiment)
    look = experiment.wanted(world.results).looks[-1]
    assert len(world.measured(optimizer="sgd")) == 4 * look.seeds
    assert analyse(experiment.matched(look, world.results)).choices[1].trains


def test_what_was_trained_in_bases_of_no_use_is_counted() -> None:
    world = World(without_sgd)
    experiment = world.experiment("activation", until_db=0.5)
    world.run(experiment)
    assert world.tries(optimizer="sgd")
    wanted = experiment.wanted(world.results)
    assert {t.key for t in wanted.trainings} == set(world.trained)


def test_a_base_names_the_parameters_of_its_numbers() -> None:
    document = {
        "data": {"name": "mnist"},
        "model": {"latent_dim": {"choices": [8, 16]}, "activation": {"choices": ["relu", "tanh"]}},
    }
    spec = spec_from_document(document, source="test")
    values = {"model.latent_dim": 8, "model.activation": "tanh"}
    base = SearchedTrial(3, 20.0, is_complete=True, values=values, precision="fp32")
    assert base_names([base], spec, []) == ("latent_dim=8 tanh",)
    assert base_names([base], spec, ["model.activation"]) == ("latent_dim=8",)
    assert base_names([base], spec, list(values)) == ("trial 3",)


def test_bases_with_the_same_choices_are_told_apart_by_what_differs() -> None:
    made = spec(latent_dim={"low": 8, "high": 64}, dropout={"low": 0.0, "high": 0.5})
    found = trials(
        *(
            trial(
                i, 24.0 - i, "relu", "adam", **{"model.latent_dim": 8 + size, "model.dropout": 0.1}
            )
            for i, size in enumerate((0, 4, 4))
        ),
        trial(3, 20.5, "tanh", "adam", **{"model.latent_dim": 8, "model.dropout": 0.1}),
    )
    activation = parameter(made, "regularizer")
    factor = choose_factor(made, activation, found)
    names = base_names(factor.bases, made, [activation.key, *factor.tuned])
    assert len(set(names)) == len(names)
    assert "relu adam latent_dim=8" in names
    assert "relu adam latent_dim=12" in names
    assert "tanh adam" in names, "there is no other one like it"
    same = [found.all[1], found.all[2]]
    assert base_names(same, made, ["train.regularizer"]) == (
        "relu adam (trial 1)",
        "relu adam (trial 2)",
    )
