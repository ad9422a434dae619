"""``search.max_parameters``: larger nets are refused before they are trained.

A trial whose sampled net is too large is sampled again, within the same trial and before anything
of it is stored, so that each trial of the budget trains a net that is small enough. A trial that
failed instead would cost a number and teach the sampler nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from searchae.config import Parameter, StudySpec, Value, model_choices, params_of_trial
from searchae.errors import SpecError
from searchae.search.distributions import to_distribution

SAMPLER_ATTEMPTS, GP_ATTEMPTS = 20, 3
"""Proposals that the study's own sampler may make for one trial. Those of ``gp`` take a third of a
second each, and for one trial they hardly differ."""
RANDOM_ATTEMPTS = 500
"""Proposals drawn uniformly after these. If all are too large, a choice is drawn from the nets at
the ends of the ranges that are small enough."""
MOST_CHOICES = 4096
"""Nets at the ends of the ranges that are looked at."""


@dataclass(frozen=True)
class SizeLimit:
    """The limit of a study on the size of its nets.

    Attributes:
        spec: The study.
        image_shape: (C, H, W) of its images.
    """

    spec: StudySpec
    image_shape: tuple[int, int, int]

    @property
    def searched(self) -> list[Parameter]:
        """The searched parameters that a net's size depends on."""
        return [p for p in self.spec.space if p.key.startswith("model.")]

    def parameters(self, values: Mapping[str, Value]) -> int:
        """Returns the number of trainable parameters of a net.

        Args:
            values: Name -> value as Optuna stores it, of at least the searched parameters.

        Raises:
            ModelError: The model cannot be built for the images.
        """
        from searchae.models import model_size  # torch, which few users of this package need

        net = {p.name: values[p.name] for p in self.searched}
        return model_size(params_of_trial(self.spec, net).model, self.image_shape).parameters

    def allows(self, values: Mapping[str, Value]) -> bool:
        """Returns whether a net is small enough; see ``parameters``."""
        limit = self.spec.search.max_parameters
        return limit is None or self.parameters(values) <= limit

    def choices(self, known: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
        """Yields the nets at the ends of the ranges, with some values given.

        Args:
            known: Name -> value as Optuna stores it.
        """
        for net in islice(model_choices(self.spec), MOST_CHOICES):
            yield {name: known.get(name, value) for name, value in net.items()}

    def is_possible(self, known: Mapping[str, Value]) -> bool:
        """Returns whether some net with these values is small enough."""
        return any(map(self.allows, self.choices(known)))

    def possible(self, initial: Mapping[str, Value]) -> dict[str, Value]:
        """Returns a trial's initial parameters; without the net's if such nets are too large."""
        if not initial or self.is_possible(initial):
            return dict(initial)
        names = {p.name for p in self.searched}
        return {name: value for name, value in initial.items() if name not in names}


class SizeLimitedSampler(BaseSampler):
    """Samples one trial with another sampler until its net is small enough.

    Args:
        sampler: The study's sampler for this trial.
        limit: Says which nets are small enough.
        seed: Of the proposals that are drawn after the sampler's own.

    Attributes:
        refused: How many proposals were refused.
    """

    def __init__(self, sampler: BaseSampler, limit: SizeLimit, *, seed: int) -> None:
        self._sampler, self._limit, self._seed = sampler, limit, seed
        self._distributions = {p.name: to_distribution(p) for p in limit.searched}
        self._sampler_space: dict[str, BaseDistribution] = {}
        self.refused = 0

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the sampler's own space and all parameters of the net."""
        self._sampler_space = self._sampler.infer_relative_search_space(study, trial)
        return self._sampler_space | self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the first proposal whose net is small enough.

        Raises:
            SpecError: No net at the ends of the ranges is.
        """
        del search_space  # the sampler's own is smaller
        known = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if known.keys() >= self._distributions.keys():  # a trial that is continued, say
            return self._sampler.sample_relative(study, trial, self._sampler_space)
        for proposal in self._proposals(study, trial, known):
            if self._limit.allows({**proposal, **known}):
                return proposal
            self.refused += 1
        raise SpecError(
            f"search.max_parameters = {self._limit.spec.search.max_parameters}: no net of this "
            "study is that small"
        )

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Samples a parameter that the net does not depend on."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passes it on."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Passes it on."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Does nothing: the sampler serves one trial, whose random numbers follow from its seed."""

    def _proposals(
        self, study: Study, trial: FrozenTrial, known: Mapping[str, Value]
    ) -> Iterator[dict[str, Any]]:
        def drawn(sampler: BaseSampler, names: list[str]) -> dict[str, Any]:
            return {
                n: sampler.sample_independent(study, trial, n, self._distributions[n])
                for n in names
            }

        proposal: dict[str, Any] = {}
        is_gp = self._limit.spec.search.sampler == "gp"
        for _ in range(GP_ATTEMPTS if is_gp else SAMPLER_ATTEMPTS):
            proposal = self._sampler.sample_relative(study, trial, self._sampler_space)
            missing = [n for n in self._distributions if n not in {**proposal, **known}]
            proposal = proposal | drawn(self._sampler, missing)
            yield proposal
        uniform = RandomSampler(seed=self._seed)
        for _ in range(RANDOM_ATTEMPTS):
            yield proposal | drawn(uniform, list(self._distributions))
        small = [net for net in self._limit.choices(known) if self._limit.allows(net)]
        if small:
            yield proposal | random.Random(self._seed).choice(small)
