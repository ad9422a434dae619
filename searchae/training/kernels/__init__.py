"""Compiled convolutions for the CPU: optional, built where there is a GNU C compiler.

PyTorch's own convolutions are used wherever these do not fit, cannot be built, or are switched off
with ``SEARCHAE_KERNELS=off``. ``winograd.c`` explains how they work, ``build`` how they are built.
"""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

from searchae.errors import UserError
from searchae.training.kernels.build import BuildError, load
from searchae.training.kernels.convolution import Convolutions
from searchae.training.kernels.library import can_use_threads
from searchae.training.kernels.self_check import self_check

__all__ = ["Convolutions", "chosen_kernels", "kernels_of", "kernels_setting"]

log = logging.getLogger(__name__)

_VARIABLE = "SEARCHAE_KERNELS"
_SETTINGS = ("auto", "off")


def kernels_setting() -> str:
    """Returns the value of the environment variable ``SEARCHAE_KERNELS``: ``auto`` or ``off``.

    Raises:
        UserError: It has another value.
    """
    setting = os.environ.get(_VARIABLE) or "auto"
    if setting not in _SETTINGS:
        raise UserError(f"{_VARIABLE}={setting}: use {' or '.join(_SETTINGS)}")
    return setting


def chosen_kernels(
    device: torch.device, precision: str, threads: int | None = None
) -> Convolutions | None:
    """Returns the compiled convolutions if training steps of a kind are to use them.

    Args:
        device: The device that trains; there are kernels for the CPU only.
        precision: Of the steps; there are kernels for ``fp32`` only, since AMX units are faster
            still where ``bf16`` is used.
        threads: Torch's threads; those that it has now if unset.

    Returns:
        The convolutions; None if PyTorch's own are to be used.

    Raises:
        UserError: ``SEARCHAE_KERNELS`` has an unknown value.
    """
    if kernels_setting() == "off" or device.type != "cpu" or precision != "fp32":
        return None
    if (threads or torch.get_num_threads()) > 1 and not can_use_threads():
        return None
    return _loaded()


def kernels_of(device: torch.device, precision: str, threads: int | None = None) -> str:
    """Returns ``winograd`` or ``torch``: which convolutions such steps use.

    Args:
        device: See ``chosen_kernels``.
        precision: See ``chosen_kernels``.
        threads: See ``chosen_kernels``.

    Raises:
        UserError: ``SEARCHAE_KERNELS`` has an unknown value.
    """
    return "torch" if chosen_kernels(device, precision, threads) is None else "winograd"


@cache
def _loaded() -> Convolutions | None:
    """Builds and checks the convolutions, once in a process; None if that fails."""
    try:
        found = Convolutions(load())
    except (BuildError, AttributeError) as e:  # AttributeError: the library lacks a function
        log.warning("no compiled convolutions (%s): PyTorch's own are used, half as fast", e)
        return None
    fault = self_check(found)
    if fault:
        log.warning("compiled convolutions are not used: %s", fault)
        return None
    return found
