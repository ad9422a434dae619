"""Whole comparisons by the product's own code, with a formula in the place of nets.

Three parameters with 4, 3 and 2 choices are compared after a random search of 40 trials, as
``searchae compare`` does it: bases, tries, finals, looks, verdicts. A net has a best learning rate
of its own and loses by the square of the distance to it, in decades; far above it nothing learns.
A short try favours higher rates. Seeds and images add noise as seen on real SVHN digits. Another
search would find other rates, so the truth is the nets' level at their best ones.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pool
from typing import Any

import numpy as np

from benchmarks.verdicts_model import BASELINE_DB, IMAGE_ERROR_DB, IMAGES, LEVEL_DB
from searchae.compare.base_names import base_names
from searchae.compare.bases import SearchedTrial, SearchedTrials, choose_factor
from searchae.compare.cells import CellMaker, Schedule
from searchae.compare.experiment import Experiment
from searchae.compare.matched_design import Limits
from searchae.compare.matched_statistics import PairDifference, analyse
from searchae.config import spec_from_document
from searchae.retrain import TrainingResult
from searchae.study import ListedTraining
from searchae.training import LEARNED_DB
from searchae.worker import TrainingRecord

TRIALS = 40
INTERACTION_DB, SEED_DB = 0.25, 0.35
CURVATURE_DB, TOO_HIGH = 4.0, 0.9
"""What a decade off the best rate costs, and how many decades above it nothing learns."""
SHORT_DB, SHORT_SHIFT = -2.0, 0.25
"""What a short try lacks, and how many decades higher its best rate lies."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "model.activation": ("relu", "leaky_relu", "sigmoid", "tanh"),
    "train.optimizer": ("adam", "rmsprop", "sgd"),
    "train.regularizer": ("clip", "clip+l1"),
}
SPEC = spec_from_document(
    {
        "data": {"name": "svhn"},
        "model": {"activation": {"choices": [*CHOICES["model.activation"]]}},
        "train": {
            "epochs": 100,
            "momentum": 0.9,
            "optimizer": {"choices": [*CHOICES["train.optimizer"]]},
            "regularizer": {"choices": [*CHOICES["train.regularizer"]]},
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "l1_weight": {"low": 1e-5, "high": 1e-2, "log": True},
        },
    },
    source="benchmarks.verdicts_product",
)
Net = tuple[str, ...]


@dataclass
class World:
    """One draw of nets, and what was trained of them.

    Attributes:
        seed: Decides everything.
        gains_db: What choices are better, by name.
        hopeless: Choices with which nothing learns.
    """

    seed: int
    gains_db: Mapping[str, float]
    hopeless: frozenset[str] = frozenset()
    trained: dict[str, ListedTraining] = field(default_factory=dict)
    results: dict[str, TrainingResult] = field(default_factory=dict)

    def level_db(self, net: Net) -> float:
        """PSNR of a net at its best learning rate."""
        own = INTERACTION_DB / math.sqrt(2) * self._draw("level", *net)
        return LEVEL_DB + sum(self.gains_db.get(c, 0.0) for c in net) + own

    def psnr_db(self, net: Net, rate: float, key: str, *, is_short: bool) -> float:
        """PSNR of a training, a mean over the images."""
        best = -2.75 + 0.2 * self._draw("rate", *net) + SHORT_SHIFT * is_short
        off = math.log10(rate) - best
        if off > TOO_HIGH or self.hopeless & {*net}:
            return BASELINE_DB
        noise = SEED_DB * self._draw("seed", key)
        gain = self.level_db(net) + SHORT_DB * is_short - CURVATURE_DB * off**2 + noise
        return max(gain, BASELINE_DB)

    def _draw(self, *what: str) -> float:
        return float(self._generator(*what).normal())

    def _generator(self, *what: str) -> np.random.Generator:
        text = "/".join((str(self.seed), *what))
        return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16))

    def search(self) -> SearchedTrials:
        """The trials of a random search, those that are good enough for a base apart."""
        rng = self._generator("search")
        found = []
        for number in range(TRIALS):
            values: dict[str, Any] = {k: str(rng.choice(c)) for k, c in CHOICES.items()}
            net = tuple(values.values())
            values["train.learning_rate"] = rate = 10 ** rng.uniform(-4, -1)
            if values["train.regularizer"] == "clip+l1":
                values["train.l1_weight"] = 10 ** rng.uniform(-5, -2)
            psnr_db = self.psnr_db(net, rate, f"trial {number}", is_short=False)
            found.append(
                SearchedTrial(number, psnr_db, is_complete=True, values=values, precision="fp32")
            )
        found.sort(key=lambda t: -t.psnr_db)
        good_db = (found[0].psnr_db + BASELINE_DB) / 2
        return SearchedTrials(
            tuple(found), tuple(t for t in found if t.psnr_db >= good_db), good_db
        )

    def measure(self, training: ListedTraining) -> float:
        """PSNR of a listed training, a mean over the images."""
        net = tuple(str(training.values[k.partition(".")[2]]) for k in CHOICES)
        train = training.params.train
        is_short = train.epochs < SPEC.epochs / 2  # a try, not a training of the final
        return self.psnr_db(net, train.learning_rate, training.key, is_short=is_short)

    def read(self, key: str) -> TrainingRecord:
        """The measurements of a training."""
        training = self.trained[key]
        deviation = IMAGE_ERROR_DB * math.sqrt(IMAGES / 2)
        likes = np.zeros(IMAGES)
        for choice in (str(training.values[k.partition(".")[2]]) for k in CHOICES):
            likes += deviation * self._generator("images", choice).normal(size=IMAGES)
        none = np.zeros(0)
        psnr_db = self.measure(training) + likes
        pictures = np.zeros((0, 1, 1, 1), np.uint8)
        return TrainingRecord(training.seed, 1, "epochs", (), 0, 0, psnr_db, none, none, pictures)

    def train(self, trainings: list[ListedTraining]) -> None:
        """Trains."""
        for training in trainings:
            psnr_db = self.measure(training)
            self.trained[training.key] = training
            self.results[training.key] = TrainingResult(
                number=len(self.trained),
                is_finished=True,
                is_pruned=False,
                outcome="",
                curve={1: psnr_db},
                psnr_db=psnr_db,
            )


@dataclass(frozen=True)
class Outcome:
    """One parameter's verdict; differences in dB."""

    parameter: str
    shows: bool
    false: bool
    covered: float
    half_db: float
    best: str
    beaten: int
    trainings: int


def compared(gains_db: Mapping[str, float], hopeless: frozenset[str], seed: int) -> list[Outcome]:
    """Compares all three parameters once."""
    world = World(seed, gains_db, hopeless)
    trials = world.search()
    schedule = Schedule(epochs=None, patience=None, precision="fp32", first_seed=1)
    trains_db = BASELINE_DB + LEARNED_DB
    found = []
    for parameter in (p for p in SPEC.space if p.key in CHOICES):
        factor = choose_factor(SPEC, parameter, trials)
        experiment = Experiment(
            factor,
            CellMaker(SPEC, factor, trials.good, schedule, trains_db=trains_db),
            Limits(0.3, bases=len(factor.bases)),
            baseline_db=np.full(IMAGES, BASELINE_DB),
            read=world.read,
            base_names=base_names(factor.bases, SPEC, [parameter.key]),
            least_db=trials.good_db,
        )
        wanted = experiment.wanted(world.results)
        while missing := [t for t in wanted.trainings if t.key not in world.trained]:
            world.train(missing)
            wanted = experiment.wanted(world.results)
        verdict = analyse(experiment.matched(wanted.looks[-1], world.results))
        trains = [c.trains for c in verdict.choices]
        pairs = [p for p in verdict.pairs if trains[p.first] and trains[p.second]]
        gaps = {p: _true_gap(world, parameter.key, p) for p in pairs}
        found.append(
            Outcome(
                parameter=parameter.name,
                shows=any(p.shown for p in pairs),
                false=any(p.shown and gaps[p] <= 0 for p in pairs),
                covered=sum(p.low_db <= gaps[p] <= p.high_db for p in pairs) / max(len(pairs), 1),
                half_db=max((p.half_width_db for p in pairs), default=math.inf),
                best=verdict.choices[verdict.best].name,
                beaten=sum(p.shown and p.first == verdict.best for p in pairs),
                trainings=len(wanted.trainings),
            )
        )
    return found


def _true_gap(world: World, key: str, pair: PairDifference) -> float:
    """The mean difference of a pair over all settings of the rest in which something learns."""
    nets: list[dict[str, str]] = [{}]
    for k, choices in CHOICES.items():
        usable = [c for c in choices if c not in world.hopeless]
        nets = [{**n, k: c} for n in nets for c in (usable if k != key else ("",))]
    first, second = CHOICES[key][pair.first], CHOICES[key][pair.second]
    gaps = (
        world.level_db(tuple({**n, key: first}.values()))
        - world.level_db(tuple({**n, key: second}.values()))
        for n in nets
    )
    return statistics.fmean(gaps)


SCENES: Mapping[str, tuple[Mapping[str, float], frozenset[str]]] = {
    "no choice is better": ({}, frozenset()),
    "nothing learns with sgd": ({}, frozenset({"sgd"})),
    "tanh is 0.5 dB better": ({"tanh": 0.5}, frozenset()),
    "tanh is 1 dB better": ({"tanh": 1.0}, frozenset()),
}


def table(runs: int) -> Iterator[str]:
    """Yields the lines of the table."""
    yield (
        "| nets | parameter | shows a difference | a false one | intervals hold | tanh best | "
        "beats all others | half-width (median) | trainings |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, (gains_db, hopeless) in SCENES.items():
        with Pool(2) as pool:
            all_found = pool.map(partial(compared, gains_db, hopeless), range(runs), chunksize=5)
        for outcomes in zip(*all_found, strict=True):
            parameter = outcomes[0].parameter
            others = len(CHOICES[f"model.{parameter}"]) - 1 if parameter == "activation" else None
            planted = "tanh" in gains_db and others is not None
            best = statistics.fmean(o.best == "tanh" for o in outcomes)
            all_beaten = statistics.fmean(o.best == "tanh" and o.beaten == others for o in outcomes)
            yield (
                f"| {name} | {parameter} | {_share(o.shows for o in outcomes)} | "
                f"{_share(o.false for o in outcomes)} | "
                f"{statistics.fmean(o.covered for o in outcomes):.1%} | "
                f"{f'{best:.0%}' if planted else ''} | {f'{all_beaten:.0%}' if planted else ''} | "
                f"{statistics.median(o.half_db for o in outcomes):.2f} dB | "
                f"{statistics.fmean(o.trainings for o in outcomes):.0f} |"
            )


def _share(found: Iterator[bool]) -> str:
    return f"{statistics.fmean(found):.1%}"
