"""Trials in the JSON format that Optuna's dashboard sends to its pages.

The dashboard has no public function that writes this format. A test compares the documents with
the responses of the installed ``optuna-dashboard``.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

_MAX_ATTRIBUTE_LENGTH = 1024
"""Characters; the dashboard cuts longer JSON values of user attributes."""


def trial_document(
    trial: FrozenTrial,
    *,
    trial_id: int,
    study_id: int,
    study_attributes: Mapping[str, Any],
    hidden_attributes: Iterable[str] = (),
) -> dict[str, Any]:
    """Returns a trial as the dashboard's pages expect it, without its intermediate values.

    Args:
        trial: The trial.
        trial_id: Its id in the database.
        study_id: Its study's id in the database.
        study_attributes: The study's system attributes; at least those about this trial. The
            dashboard stores notes on trials, and files uploaded to them, with the study.
        hidden_attributes: Keys of user attributes to leave out.
    """
    system_attributes = trial.system_attrs
    fixed_params = system_attributes.get("fixed_params", {})
    hidden = set(hidden_attributes)
    return {
        "trial_id": trial_id,
        "study_id": study_id,
        "number": trial.number,
        "state": trial.state.name.capitalize(),
        "params": [
            _parameter(name, value, trial.distributions[name])
            for name, value in trial.params.items()
        ],
        "fixed_params": [
            {"name": name, "param_external_value": str(value)}
            for name, value in fixed_params.items()
        ],
        "user_attrs": [
            {"key": key, "value": _attribute_text(value)}
            for key, value in trial.user_attrs.items()
            if key not in hidden
        ],
        "note": _note(study_attributes, trial_id),
        "artifacts": _artifacts(study_attributes, f"dashboard:artifacts:{trial_id}:")
        + _artifacts(system_attributes, "artifacts:"),
        "constraints": system_attributes.get("constraints", []),
        **_result(trial),
    }


def trial_json(
    document: Mapping[str, Any], intermediate_values: Mapping[int, float] | Mapping[float, float]
) -> str:
    """Returns the JSON text of a trial's document, with its intermediate values added."""
    # Written by hand: these are most of the text, and json.dumps takes six times as long.
    values = ", ".join(
        [
            f'{{"step": {step}, "value": {_json_number(value)}}}'
            for step, value in sorted(intermediate_values.items())
        ]
    )
    return f'{json.dumps(document)[:-1]}, "intermediate_values": [{values}]}}'


def _result(trial: FrozenTrial) -> dict[str, Any]:
    """Returns values and times; keys without a value are left out."""
    found: dict[str, Any] = {}
    if trial.values is not None:
        found["values"] = [_number_or_text(value) for value in trial.values]
    if trial.datetime_start is not None:
        found["datetime_start"] = trial.datetime_start.isoformat()
    if trial.datetime_complete is not None:
        found["datetime_complete"] = trial.datetime_complete.isoformat()
    return found


def _parameter(name: str, value: Any, distribution: BaseDistribution) -> dict[str, Any]:
    return {
        "name": name,
        "param_internal_value": distribution.to_internal_repr(value),
        "param_external_value": str(value),
        "param_external_pytyp": str(type(value)),
        "distribution": _distribution(distribution),
    }


def _distribution(distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return {
            "type": type(distribution).__name__,
            "low": distribution.low,
            "high": distribution.high,
            "step": distribution.step,
            "log": distribution.log,
        }
    assert isinstance(distribution, CategoricalDistribution)  # Optuna reads no other kind
    return {
        "type": "CategoricalDistribution",
        "choices": [{"pytype": str(type(c)), "value": str(c)} for c in distribution.choices],
    }


def _attribute_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Real):
        return str(value)
    return json.dumps(value)[:_MAX_ATTRIBUTE_LENGTH]


def _note(study_attributes: Mapping[str, Any], trial_id: int) -> dict[str, Any]:
    """Returns the note that a person wrote; the dashboard stores it in numbered parts."""
    version = study_attributes.get(f"dashboard:{trial_id}:note_ver")
    if version is None:
        return {"version": 0, "body": ""}
    prefix = f"dashboard:{trial_id}:note_str:"
    count = sum(key.startswith(prefix) for key in study_attributes)
    body = "".join(study_attributes[f"{prefix}{part}"] for part in range(count))
    return {"version": int(version), "body": body}


def _artifacts(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    found = [json.loads(text) for key, text in attributes.items() if key.startswith(prefix)]
    return [artifact for artifact in found if artifact is not None]  # None: it was deleted


def _number_or_text(value: float) -> float | str:
    """Returns the value, or its name where JSON has no number for it."""
    return value if math.isfinite(value) else str(value)


def _json_number(value: float) -> str:
    text = repr(value)
    return f'"{text}"' if text in ("nan", "inf", "-inf") else text
