"""Imports of a command: they take seconds, so that each command makes its own."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Disables garbage collection within the block, which is for imports that take seconds.

    Imports leave hardly any garbage, and looking for it takes a quarter of their time. On a
    terminal, ``loading ...`` is shown until the block ends.
    """
    enabled, stderr = gc.isenabled(), sys.stderr
    # A process may have been started without a standard error.
    on_terminal = stderr is not None and not stderr.closed and stderr.isatty()
    gc.disable()
    if on_terminal:
        print("loading ...", end="", file=stderr, flush=True)
    try:
        yield
    finally:
        if on_terminal:
            stderr = getattr(stderr, "stream", stderr)  # which takes a carriage return as it is
            print("\r           \r", end="", file=stderr, flush=True)
        if enabled:
            gc.enable()


def quiet_optuna() -> None:
    """Silences Optuna's log of each trial and its warnings of experimental features."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
