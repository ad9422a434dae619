"""Compiled convolutions for a CPU: an optional part, built where there is a C compiler.

PyTorch's own do the same wherever these do not fit, cannot be built, or are switched off with
``SEARCHAE_KERNELS=off``. ``winograd.c`` says how they work, ``build`` how they come about.
"""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

from searchae.errors import UserError
from searchae.training.kernels.build import BuildError, load
from searchae.training.kernels.convolution import Convolutions, can_use_threads, self_check

__all__ = ["CHOICES", "Convolutions", "check_wish", "chosen", "kernels_of"]

log = logging.getLogger(__name__)

VARIABLE = "SEARCHAE_KERNELS"
CHOICES = ("auto", "off")


def check_wish() -> str:
    """What the environment asks for: one of ``CHOICES``.

    Raises:
        UserError: ``SEARCHAE_KERNELS`` is something else.
    """
    wish = os.environ.get(VARIABLE) or "auto"
    if wish not in CHOICES:
        raise UserError(f"{VARIABLE}={wish}: use {' or '.join(CHOICES)}")
    return wish


def chosen_kernels(
    device: torch.device, precision: str, threads: int | None = None
) -> Convolutions | None:
    """The compiled convolutions, if steps of that kind are to use them.

    Args:
        device: That trains: only a CPU has them.
        precision: Of the steps: only ``fp32`` has them; AMX's units, where bf16 is used, are
            faster still.
        threads: Of torch; unset: those that it has now.

    Raises:
        UserError: See ``check_wish``.
    """
    if check_wish() == "off" or device.type != "cpu" or precision != "fp32":
        return None
    if (threads or torch.get_num_threads()) > 1 and not can_use_threads():
        return None
    return _loaded()


def kernels_of(device: torch.device, precision: str, threads: int | None = None) -> str:
    """What computes such steps, for the record: ``winograd`` or ``torch``; see ``chosen``."""
    return "torch" if chosen_kernels(device, precision, threads) is None else "winograd"


@cache
def _loaded() -> Convolutions | None:
    """Built and tried once in a process; None, with a word in the log, where that fails."""
    try:
        found = Convolutions(load())
    except (BuildError, AttributeError) as e:  # the second: a library without the functions
        log.warning("no compiled convolutions (%s): PyTorch's own are used, half as fast", e)
        return None
    fault = self_check(found)
    if fault:
        log.warning("compiled convolutions are not used: %s", fault)
        return None
    return found
