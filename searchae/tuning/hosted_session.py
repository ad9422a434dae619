"""A search in a process that goes on after it, such as a notebook's kernel."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import optuna
import torch

from searchae.errors import SearchInterrupt
from searchae.formatting import one_line
from searchae.launch import Launcher
from searchae.tuning.fleet_run import STOP_S
from searchae.tuning.monitor import StopRequest, Watcher
from searchae.tuning.notebook_progress import NotebookProgress, in_notebook
from searchae.tuning.plain_lines import NoLines, PlainLines


@contextmanager
def session(
    launcher: Launcher, *, quiet: bool, epochs: int | None = None
) -> Iterator[tuple[Watcher, StopRequest]]:
    """Runs a block that searches or trains, and leaves this process as it was.

    SIGINT, which is Ctrl-C or a notebook's "interrupt", stops the workers; they put their trials
    back. No worker is left after the block, and what was set in this process (the handler of
    SIGINT, torch's random state and threads, Optuna's log) is as it was before.

    Args:
        launcher: Runs the workers.
        quiet: Whether to show nothing.
        epochs: See ``NotebookProgress``.

    Yields:
        What shows the progress, and the request to stop that SIGINT sets.

    Raises:
        SearchInterrupt: SIGINT came.
    """
    watcher: Watcher
    if quiet:
        watcher = NoLines()
    else:
        watcher = NotebookProgress(epochs) if in_notebook() else PlainLines(_show)
    stop = StopRequest()
    try:
        with _interruptible(stop), _unchanged_torch(), _quiet_optuna():
            try:
                yield watcher, stop
            finally:
                if launcher.is_local:  # a signal may have come while they were being stopped
                    launcher.stop(wait_s=STOP_S)
    except KeyboardInterrupt:
        raise SearchInterrupt(
            "running trials are kept, up to their last epoch; the same call again continues them"
        ) from None


def _show(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()


@contextmanager
def _interruptible(stop: StopRequest) -> Iterator[None]:
    """Within the block SIGINT sets ``stop`` where it is polled, and raises elsewhere.

    Further ones are ignored: to stop the workers takes ``STOP_S`` at most, and in a process that
    goes on nobody else would do it.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            return
        stop.set()
        if not stop.is_polled:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _unchanged_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)
