"""Asks for a trial's checkpoint on a machine that does not share the artifact folder.

The launcher that started this worker copies checkpoints between machines, on demand. A file in a
folder of the two, named after the study's folder and the trial, asks; that it is gone answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""Seconds that a worker waits; after that it trains the epochs again."""
LOOK_S = 0.1


def ask_for_checkpoint(
    folder: Path, study: str, number: int, *, should_leave: Callable[[], bool]
) -> None:
    """Waits until a trial's newest checkpoint has been brought, or cannot be.

    Args:
        folder: Where files ask.
        study: The name of the study's folder below the artifact folder.
        number: The trial's number.
        should_leave: Whether to wait no longer.
    """
    asked = folder / f"{study}@{number:06d}"
    deadline = time.monotonic() + WAIT_S
    try:
        asked.touch()
        while asked.exists() and time.monotonic() < deadline and not should_leave():
            time.sleep(LOOK_S)
        asked.unlink(missing_ok=True)
    except OSError as e:  # the launcher's folder is gone, and so will this worker be
        log.warning("trial %d: its checkpoint cannot be asked for: %s", number, e)
