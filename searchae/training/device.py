"""Devices by name."""

from __future__ import annotations

import torch

from searchae.errors import DeviceError


def pick_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        DeviceError: It is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"--device {name}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(
            f"--device {name}: this machine has {count} CUDA devices; use --device cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    return device
