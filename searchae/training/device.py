"""The device to train on, chosen by name."""

from __future__ import annotations

import torch

from searchae.errors import DeviceError

CONTEXT_BYTES = 700 << 20
"""Upper bound of the GPU memory that a process takes besides its tensors, in bytes."""


def held_by_others(device: torch.device) -> int:
    """Returns how many bytes of a GPU's memory other processes hold, at least; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device) - CONTEXT_BYTES)


def pick_device(name: str) -> torch.device:
    """Returns the device of a name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: CUDA if there is any, else the CPU.

    Raises:
        DeviceError: The name is none of these, or this machine has no such device.
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
