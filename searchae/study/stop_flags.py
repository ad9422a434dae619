"""Why a study gives out no more trials, and which workers have left it for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchae.study.attributes import QUARANTINED, STOP_ASKED, STOPPED


def stop_message(attributes: Mapping[str, Any]) -> str:
    """Returns which fault stopped a study, from its user attributes; empty if none did."""
    return str(attributes.get(STOPPED, ""))


def who_asked_to_stop(attributes: Mapping[str, Any]) -> str:
    """Returns who asked for a stop, from a study's user attributes; empty if nobody did."""
    return str(attributes.get(STOP_ASKED, ""))


def quarantine_reasons(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns why workers left a study for good, from its user attributes, a line each."""
    return tuple(
        str(value) for key, value in attributes.items() if key.startswith(QUARANTINED) and value
    )


def stop_keys(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the attributes that a study has to lose before it is worked on again."""
    return tuple(
        key
        for key, value in attributes.items()
        if value and (key in (STOPPED, STOP_ASKED) or key.startswith(QUARANTINED))
    )
