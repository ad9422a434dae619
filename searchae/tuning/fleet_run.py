"""Ends the workers of a search with it, and whatever ends it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from searchae.errors import NoStudyError, StorageError
from searchae.files import ArtifactPath
from searchae.launch import Launcher
from searchae.storage import masked_url
from searchae.study import Coordinator
from searchae.training import checkpoint_folder, remove_old_checkpoints
from searchae.tuning.monitor import EndedTrials, StopRequest, Watcher

STOP_S = 30.0
"""Seconds that workers get to put their trials back when the search ends."""
LOOK_S = 0.1
"""Seconds between two looks whether a stop was requested."""


@contextmanager
def running_fleet(
    launcher: Launcher,
    coordinator: Coordinator,
    stop: StopRequest,
    watcher: Watcher,
    artifacts: ArtifactPath,
) -> Iterator[EndedTrials]:
    """Runs a block that starts workers; afterwards none of them is left.

    Trials that were running have been put back then, as far as the database answers, those that
    ended meanwhile have been shown, and the checkpoints of trials that have ended are removed. Once
    ``stop`` is set, nothing waits for a database that is away.

    Args:
        launcher: Runs the workers.
        coordinator: Of the study that they work on.
        stop: Setting it ends the block like an interrupt.
        watcher: Gets lines for the user, and trials that end while the workers are stopped.
        artifacts: The folder that all workers share.

    Yields:
        What shows the trials that end within the block.

    Raises:
        KeyboardInterrupt: ``stop`` was set.
    """
    storage = coordinator.stored.storage

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise StorageError(f"{masked_url(storage.engine.url)}: the database is away")

    storage.backoff = replace(storage.backoff, sleep=sleep)
    ended, failed = EndedTrials(coordinator, watcher), False
    try:
        stop.is_polled = True
        with _announced(stop, watcher.note):
            yield ended
    except KeyboardInterrupt as e:
        traceback.clear_frames(e.__traceback__)  # a frame may hold a transaction
        raise
    except StorageError as e:
        if stop.is_set():
            raise KeyboardInterrupt from e
        failed = True
        raise
    finally:
        stop.is_polled = False
        launcher.stop(wait_s=STOP_S)
        _put_back(coordinator, artifacts, ended, (lambda _: None) if failed else watcher.note)


@contextmanager
def _announced(stop: StopRequest, note: Callable[[str], None]) -> Iterator[None]:
    """Says at once that a stop was requested, also while the main thread waits for the database."""
    ended = threading.Event()

    def announce() -> None:
        while not ended.is_set():
            if stop.wait(LOOK_S):
                note("stopping: what is running is kept, to be continued ...")
                return

    thread = threading.Thread(target=announce, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _put_back(
    coordinator: Coordinator,
    artifacts: ArtifactPath,
    ended: EndedTrials,
    note: Callable[[str], None],
) -> None:
    """Puts back what dead workers have left running, and removes checkpoints of ended trials."""
    stored = coordinator.stored
    folder = checkpoint_folder(artifacts, stored.folder)
    try:
        coordinator.reap(trust_silence=False)
        ended.show_rest()
        over = {t.number for t in coordinator.snapshot().trials if t.state.is_finished()}
    except NoStudyError:
        return
    except StorageError as e:
        note(
            f"{e}. Trials that were running are given to other workers "
            f"{stored.spec.search.grace_s:g} s after their last heartbeat"
        )
        return
    remove_old_checkpoints(folder, over)
