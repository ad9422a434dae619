"""Searched parameters as Optuna's distributions."""

from __future__ import annotations

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from searchae.config import Parameter, Value


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """Returns the distribution of a searched parameter."""
    p = parameter
    if p.choices:
        return CategoricalDistribution(p.labels)
    if p.integer:
        return IntDistribution(int(p.low), int(p.high), log=p.log, step=int(p.step or 1))
    return FloatDistribution(p.low, p.high, log=p.log, step=p.step)


def can_take(parameter: Parameter, label: Value) -> bool:
    """Tells whether a stored value is one that the parameter can take.

    Args:
        parameter: A searched parameter.
        label: A number, or one of the labels of a choice.
    """
    if parameter.choices:
        return label in parameter.labels
    if not isinstance(label, int | float):
        return False
    if parameter.step is None and not parameter.integer:  # as most are; making one takes longer
        return parameter.low <= label <= parameter.high
    described = to_distribution(parameter)
    assert isinstance(described, FloatDistribution | IntDistribution)
    if not described.low <= label <= described.high:
        return False
    if described.step is None:
        return True
    steps = (label - described.low) / described.step
    return abs(steps - round(steps)) < 1e-8
