"""What a message says about an error in the code of a net of one's own."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import nn

_SEARCHAE = str(Path(__file__).parents[1]) + os.sep
_TORCH = str(Path(torch.__file__).parent) + os.sep
_PYTHON = str(Path(os.__file__).parent) + os.sep
_PACKAGES = ("site-packages", "dist-packages")

Frames = Sequence[tuple[FrameType, int]]


def error_text(error: BaseException, net: nn.Module | None = None) -> str:
    """Returns an error of someone's code in one line, with the place in that code.

    Args:
        error: What was caught.
        net: The net that was run, if it was one; the layer that failed is named as it is there.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    text = " ".join(str(error).split())[:300]
    layer = _layer(frames, net) if net is not None else ""
    return f"{type(error).__name__}: {text}{layer}{_line(frames)}"


def few(names: Sequence[str]) -> str:
    """Returns the first five names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}" if names else "none"


def _layer(frames: Frames, net: nn.Module) -> str:
    """Returns the innermost module that was running, unless it is the net itself."""
    running = (frame.f_locals.get("self") for frame, _ in reversed(frames))
    module = next((m for m in running if isinstance(m, nn.Module)), None)
    name = next((n for n, m in net.named_modules() if m is module), "")
    return f", in {name} ({type(module).__name__})" if name else ""


def _line(frames: Frames) -> str:
    """Returns the last line of the user's: outside of packages, else at least not torch's."""
    lines = [(frame.f_code.co_filename, number) for frame, number in frames]
    lines = [line for line in lines if not _is_library(line[0])]
    own = [line for line in lines if not _is_installed(line[0])] or lines
    return f", line {own[-1][1]} of {own[-1][0]}" if own else ""


def _is_library(path: str) -> bool:
    if path.startswith(_PYTHON) and not _is_installed(path):
        return True
    return path.startswith((_SEARCHAE, _TORCH, "<"))


def _is_installed(path: str) -> bool:
    return any(name in path for name in _PACKAGES)
