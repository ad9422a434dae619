"""What a ``Trainer`` puts into a checkpoint, and whether it may resume from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from searchae.config import TrialParams
from searchae.training.checkpoint import CheckpointError

FORMAT = 2
"""Version of the state; raised whenever its content changes."""

_MAY_CHANGE = frozenset({"epochs", "patience", "min_delta_db"})
"""Keys of ``[train]`` that do not change the weights after a given epoch."""


def state_header(params: TrialParams, seed: int) -> dict[str, Any]:
    """Returns the part of a state that says which training it belongs to, as plain values."""
    return {
        "format": FORMAT,
        "seed": seed,
        "params": {
            "model": params.model.model_dump(mode="json"),
            "train": params.train.model_dump(mode="json", exclude=set(_MAY_CHANGE)),
        },
    }


def check_resumable(state: Mapping[str, Any], params: TrialParams, seed: int) -> None:
    """Checks that a state belongs to a training with these parameters and this seed.

    Args:
        state: The state to resume from.
        params: The trial that resumes; epochs and plateau rule may differ from the state's.
        seed: The seed that it is trained with.

    Raises:
        CheckpointError: It has another format, seed or parameters.
    """
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint: format {state.get('format')!r}, expected {FORMAT}: it is of another "
            "version of searchae; start the trial over"
        )
    for key, value in state_header(params, seed).items():
        if state[key] != value:
            raise CheckpointError(
                f"checkpoint: {key} = {state[key]!r}, but this trial has {value!r}"
            )


def copy_to_cpu(value: Any) -> Any:
    """Copies tensors, dicts and lists deeply, tensors to the CPU; returns anything else as it is.

    A tensor that is on the CPU already is copied too, so that further training does not change it.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {k: copy_to_cpu(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copy_to_cpu(v) for v in value]
    return value
