"""What of a study's search space cannot work, or does less than it seems to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from searchae.config import CONDITIONS, Parameter, StudySpec
from searchae.errors import SpecError
from searchae.formatting import format_count
from searchae.search import floored_parameters

WIDE = 100.0
"""A range of real numbers that spans such a factor is sampled by its logarithm as a rule."""


def check_space(spec: StudySpec, note: Callable[[str], None]) -> None:
    """Checks that the trials of a study differ.

    Args:
        spec: The study.
        note: Called with advice, a line on each range whose end is never tried, that is wide
            without a logarithm or that is never sampled, where schedules of the learning rate are
            searched and trials pruned, and where there are more trials than settings, or fewer
            than ``search.first`` lists or than ``search.min_trials_per_choice`` takes.

    Raises:
        SpecError: Nothing is searched, so that all trials would be one training.
    """
    trials = spec.search.trials
    if not spec.space and trials > 1:
        raise SpecError(
            f"search.trials: nothing is searched: all {trials} trials would train the same net "
            "with the same seed. Give a key under [model] or [train] a range or choices, such as "
            "learning_rate = { low = 1e-4, high = 1e-1, log = true }; or run one trial "
            "(--trials 1) and train it with several seeds (searchae train --seeds)"
        )
    if (listed := len(spec.search.first)) > trials:
        note(
            f"search.first: lists {listed} trials, of which only the first {trials} are run: "
            f"--trials {listed} or more runs all of them"
        )
    if text := _few_trials(spec):
        note(text)
    for text in (*_range_notes(spec), *_condition_notes(spec)):
        note(text)
    schedules = [p for p in spec.space if p.key == "train.schedule" and len(p.choices) > 1]
    if schedules and spec.search.pruner != "none" and not spec.search.has_several_objectives:
        note(
            "train.schedule: is searched, and a learning rate that falls towards the end pays only "
            'then, so that its trials may be pruned too early; search.pruner = "none" prunes none'
        )
    if spec.space and (settings := settings_count(spec)) < trials:
        note(
            f"search.trials: {trials} trials, but the space has only "
            f"{format_count(int(settings), 'setting')}: some are trained again, with the same seed "
            "and the same result"
        )


def _range_notes(spec: StudySpec) -> Iterator[str]:
    """Yields advice on ranges whose end is never tried, or that are wide without a logarithm."""
    for parameter in spec.space:
        if parameter.step is not None and (last := last_value(parameter)) < parameter.high:
            yield (
                f"{parameter.key}: steps of {parameter.step:g} from {parameter.low:g} do not reach "
                f"high = {parameter.high:g}; the largest value that is tried is {last:g}"
            )
        if _is_wide(parameter):
            yield (
                f"{parameter.key}: its range spans a factor of "
                f"{parameter.high / parameter.low:,.0f}, and without log = true nine of ten trials "
                f"are above {parameter.low + 0.1 * (parameter.high - parameter.low):.2g}"
            )


def _condition_notes(spec: StudySpec) -> Iterator[str]:
    """Yields advice on parameters that are never sampled."""
    for parameter in spec.space:
        if parameter.key in CONDITIONS and not _parent_values(spec, parameter):
            parent, values = CONDITIONS[parameter.key]
            yield (
                f"{parameter.key}: is never sampled, since it is used only with {parent} = "
                f"{' or '.join(sorted(map(str, values)))}"
            )


def _is_wide(parameter: Parameter) -> bool:
    is_real = not (parameter.choices or parameter.integer or parameter.log)
    return is_real and parameter.low > 0 and parameter.high >= WIDE * parameter.low


def _few_trials(spec: StudySpec) -> str:
    """Returns a warning where not all choices can get their trials; else an empty text.

    A trial has one choice of each parameter, so that the one with the most choices needs the most.
    """
    choosing = floored_parameters(spec)
    if not choosing:
        return ""
    largest = max(choosing, key=lambda p: len(p.choices))
    count, floor = len(largest.choices), spec.search.min_trials_per_choice
    needed, trials = count * floor, spec.search.trials
    if trials >= min(needed, settings_count(spec)):
        return ""
    return (
        f"search.trials: {trials} is few for the {count} choices of {largest.name}: so that each "
        f"gets {floor} (search.min_trials_per_choice), it takes {needed} trials or more; with "
        "fewer, the best choice may just have been lucky"
    )


def last_value(parameter: Parameter) -> float:
    """Returns the largest value of a range with a step."""
    assert parameter.step is not None
    value = parameter.low + (_values_count(parameter) - 1) * parameter.step
    return min(value, parameter.high)


def settings_count(spec: StudySpec) -> float:
    """Returns how many different settings the search space has; infinite with a range of floats."""
    dependent = [p for p in spec.space if p.key in CONDITIONS]
    parents = {CONDITIONS[p.key][0] for p in dependent}
    others = [p for p in spec.space if p not in dependent and p.key not in parents]
    count = math.prod(_values_count(p) for p in others)
    for key in parents:
        children = [p for p in dependent if CONDITIONS[p.key][0] == key]
        values = spec.choices_of(key)
        count *= sum(
            math.prod(_values_count(c) for c in children if value in CONDITIONS[c.key][1])
            for value in values
        )
    return count


def _parent_values(spec: StudySpec, parameter: Parameter) -> list[object]:
    """Returns the values of the key on which a parameter depends with which it is sampled."""
    key, wanted = CONDITIONS[parameter.key]
    return [v for v in spec.choices_of(key) if v in wanted]


def _values_count(parameter: Parameter) -> float:
    if parameter.choices:
        return len(parameter.choices)
    step = parameter.step or (1 if parameter.integer else None)
    if step is None:
        return math.inf
    # 0.25 / 0.05 is a little less than 5 in floats.
    return math.floor((parameter.high - parameter.low) / step + 1e-8) + 1
