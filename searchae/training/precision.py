"""Numerical precision of the training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from searchae.errors import UserError

Precision = Literal["fp32", "bf16"]
"""Of convolutions and matrix products in a step; weights, loss and evaluation are always float32.

On a GPU, torch computes float32 convolutions in TF32 by default.
"""

CHOICES = ("auto", "fp32", "bf16")

_CPUINFO = Path("/proc/cpuinfo")


def pick_precision(name: str, device: torch.device) -> Precision:
    """Returns the precision of a name.

    ``auto`` is bf16 on a CPU with AMX units, where a step takes about half the time, and fp32
    elsewhere. On a CPU without AMX, bf16 takes ten times as long. On a GPU, small nets are limited
    by the launching of kernels, and bf16 needs more kernels.

    Args:
        name: ``auto``, ``fp32`` or ``bf16``.
        device: The device to train on.

    Raises:
        UserError: There is no such precision.
    """
    if name not in CHOICES:
        raise UserError(f"--precision {name}: use {', '.join(CHOICES)}")
    if name == "auto":
        return "bf16" if device.type == "cpu" and _has_amx() else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def why_slow(precision: Precision, device: torch.device) -> str:
    """Returns a warning if a precision is slow on a device; empty if it is not."""
    if precision == "bf16" and device.type == "cpu" and not _has_amx():
        return (
            "--precision bf16: this CPU has no units for it (AMX), so that a step takes about ten "
            "times as long as in fp32; leave the option out"
        )
    return ""


def _has_amx() -> bool:
    try:
        text = _CPUINFO.read_text()
    except OSError:  # not Linux
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "amx_bf16" in flags.split()
