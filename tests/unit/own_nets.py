"""Nets of people's own, written to a file for a test."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from searchae.config import ModelParams, find_factory


def write_net(folder: Path, code: str, **args: Any) -> ModelParams:
    """Writes ``nets.py``, whose function ``build`` is the net's factory."""
    path = folder / "nets.py"
    path.write_text(textwrap.dedent(code))
    text = f"{path}:build"
    sha256 = find_factory(text).sha256
    return ModelParams(kind="python", factory=text, factory_sha256=sha256, args=args)
