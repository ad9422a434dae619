"""Decides whether code that uses Optuna's private names fits the installed Optuna.

``storage.batched_storage`` and ``search.incremental_algorithms`` do the same as Optuna's own
storage, sampler and pruners with less work, by means of private names that any release of Optuna
may change. Each of their parts has a self-check. Where it fails, Optuna's own public classes are
used instead.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Sequence

import optuna

from searchae.errors import UserError

log = logging.getLogger(__name__)

VARIABLE = "SEARCHAE_OPTUNA"
"""``auto`` (the default), or ``public`` to use nothing but Optuna's public names."""

_warned: set[str] = set()


def is_usable(
    part: str, self_check: Callable[[], None], *, instead: str, obstacle: str = ""
) -> bool:
    """Tells whether a part that uses private names can be used; warns once per process if not.

    Args:
        part: What the part is, for the warning.
        self_check: Raises any exception if the part does not fit; called once per process. It
            imports the part's module itself.
        instead: What is used instead, for the warning.
        obstacle: Why the part cannot be used, where that is known without the self-check.

    Raises:
        UserError: ``SEARCHAE_OPTUNA`` is neither ``auto`` nor ``public``.
    """
    setting = optuna_setting()
    reason = f"{VARIABLE}=public" if setting == "public" else obstacle or failure_of(self_check)
    if reason and part not in _warned:
        _warned.add(part)
        log.warning(
            "Optuna %s is used through %s, which is slower, in place of searchae's %s (%s)",
            *(optuna.__version__, instead, part, reason),
        )
    return not reason


def optuna_setting() -> str:
    """Returns ``auto`` or ``public``, as the environment variable ``SEARCHAE_OPTUNA`` says.

    Raises:
        UserError: It is something else.
    """
    setting = os.environ.get(VARIABLE) or "auto"
    if setting not in ("auto", "public"):
        raise UserError(f"{VARIABLE}={setting}: use auto or public")
    return setting


@functools.cache
def failure_of(self_check: Callable[[], None]) -> str:
    """Returns why a self-check fails; an empty text if it passes."""
    try:
        self_check()
    except Exception as e:  # noqa: BLE001 (code written for another Optuna may raise anything)
        return f"{type(e).__name__}: {e}"
    return ""


def require_signature(function: Callable[..., object], parameters: Sequence[str]) -> None:
    """Checks the names of a function's parameters.

    Raises:
        TypeError: They are others.
    """
    found = list(inspect.signature(function).parameters)
    if found != list(parameters):
        raise TypeError(f"{function.__qualname__} takes ({', '.join(found)})")
