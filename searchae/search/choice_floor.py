"""Tries each choice often enough that its first learning rates do not decide about it.

TPE soon leaves out a choice whose first trials were bad, also where only their learning rates were.
So every second trial, once the sampler learns from results, goes to the choice with the fewest
trials, until each has ``search.min_trials_per_choice``. Such a trial is one of the study's best
trials with this one choice exchanged and the numbers drawn near the ones that it had, away from
those that this choice was tried with. Everything follows from the trial's number and the study's
trials; nothing is kept in a process.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from searchae.config import CONDITIONS, Parameter, StudySpec, Value, sampler_seed

MOST_CHOICES = 8
"""A parameter with more choices has no floor: it would take the whole search."""
EVERY = 2
"""One trial in so many may be spent on a rare choice."""
BEST_SHARE, BEST_LEAST = 0.1, 3
"""The share of the finished trials that are taken for the best, and the fewest that are."""
SPREAD = 0.1
"""Standard deviation of a drawn number around a good trial's, as a share of its range."""
DRAWS = 8
"""Draws of which the one farthest from what the choice was tried with is taken."""

Params = dict[str, Value]


def floored_parameters(spec: StudySpec) -> list[Parameter]:
    """Returns the parameters of whose choices each gets ``search.min_trials_per_choice`` trials."""
    if spec.search.sampler == "random" or not spec.search.min_trials_per_choice:
        return []
    return [
        p for p in spec.space if 2 <= len(p.choices) <= MOST_CHOICES and p.key not in CONDITIONS
    ]


class ChoiceFloor:
    """Finds the choice that has too few trials, and parameters to try it with.

    Args:
        spec: The study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._floor = spec.search.min_trials_per_choice
        self._choices = floored_parameters(spec)
        # A number on a grid (such as a layer's width) is kept as the good trial had it.
        self._ranges = [
            p for p in spec.space if not (p.choices or p.integer or p.step) and p.high > p.low
        ]
        self._is_reached = not self._choices

    def params(self, study: optuna.Study, number: int) -> Params:
        """Returns the parameters of a trial that shall try a rare choice; none for any other trial.

        Args:
            study: The study. Its trials are read only while a choice is below the floor.
            number: The number of the trial to sample.

        Returns:
            Name -> value as Optuna stores it; active parameters that are left out are sampled.
        """
        if self._is_reached or number % EVERY:
            return {}
        trials = study.get_trials(deepcopy=False)
        best = _best(trials, at_least=max(1, self._spec.search.startup_trials))
        if not best:
            return {}
        wanted = self._wanted(trials)
        self._is_reached = not wanted  # trials are never deleted
        # Trials that other workers are sampling now take the first ones.
        ahead = sum(t.number % EVERY == 0 and _is_unsampled(t) for t in trials[:number])
        if ahead >= len(wanted):
            return {}
        parameter, choice = wanted[ahead]
        rng = random.Random(sampler_seed(self._spec.seed, number))
        return self._near_best(best, trials, parameter, choice, rng)

    def _wanted(self, trials: Sequence[FrozenTrial]) -> list[tuple[Parameter, Value]]:
        """Returns the choices below the floor, each as often as it is, the rarest first.

        Trials of any state count, also imported, running and failed ones: a choice that always
        fails gets no more than its floor.
        """
        found = []
        for index, parameter in enumerate(self._choices):
            counts = Counter(t.params.get(parameter.name) for t in trials)
            for position, choice in enumerate(parameter.labels):
                found += [(n, index, position) for n in range(counts[choice], self._floor)]
        return [(self._choices[i], self._choices[i].labels[p]) for _, i, p in sorted(found)]

    def _near_best(
        self,
        best: Sequence[FrozenTrial],
        trials: Sequence[FrozenTrial],
        parameter: Parameter,
        choice: Value,
        rng: random.Random,
    ) -> Params:
        tried = [t.params for t in trials if t.params.get(parameter.name) == choice]
        drawn = [
            self._active({**self._near(rng.choice(best).params, rng), parameter.name: choice})
            for _ in range(DRAWS)
        ]
        return max(drawn, key=lambda d: min((self._distance(d, t) for t in tried), default=0.0))

    def _near(self, params: Mapping[str, Value], rng: random.Random) -> Params:
        drawn = dict(params)
        for p in self._ranges:
            if p.name in drawn:
                drawn[p.name] = _at(p, _position(p, drawn[p.name]) + rng.gauss(0, SPREAD))
        return drawn

    def _active(self, params: Params) -> Params:
        values = {p.key: p.value(params[p.name]) for p in self._spec.space if p.name in params}
        active = [p.name for p in self._spec.space if self._spec.is_active(p.key, values)]
        return {name: params[name] for name in active if name in params}

    def _distance(self, a: Mapping[str, Value], b: Mapping[str, Value]) -> float:
        shared = [p for p in self._ranges if p.name in a and p.name in b]
        return math.hypot(*(_position(p, a[p.name]) - _position(p, b[p.name]) for p in shared))


def _best(trials: Sequence[FrozenTrial], *, at_least: int) -> list[FrozenTrial]:
    """Returns the trials with the highest last PSNR; none if fewer than ``at_least`` have one.

    Unlike TPE's, this order does not put a bad complete trial before a good pruned one.
    """
    scored = [(s, -t.number) for t in trials if (s := _last_psnr_db(t)) is not None]
    if len(scored) < at_least:
        return []
    count = max(BEST_LEAST, math.ceil(BEST_SHARE * len(scored)))
    return [trials[-number] for _, number in sorted(scored, reverse=True)[:count]]


def _last_psnr_db(trial: FrozenTrial) -> float | None:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    reports = trial.intermediate_values
    value = trial.values[0] if trial.values else reports[max(reports)] if reports else None
    return None if value is None or not math.isfinite(value) else value


def _is_unsampled(trial: FrozenTrial) -> bool:
    return not trial.state.is_finished() and not trial.params


def _position(p: Parameter, value: Value) -> float:
    """Returns where a value lies in its range, from 0 to 1."""
    number = float(value)
    if p.log:
        return math.log(number / p.low) / math.log(p.high / p.low)
    return (number - p.low) / (p.high - p.low)


def _at(p: Parameter, position: float) -> float:
    share = min(max(position, 0.0), 1.0)
    value = p.low * (p.high / p.low) ** share if p.log else p.low + share * (p.high - p.low)
    return min(max(value, p.low), p.high)  # it may be rounded to the outside
