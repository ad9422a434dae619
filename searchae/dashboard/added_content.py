"""Notes, pictures and plots that searchae adds to the pages of Optuna's dashboard.

They are made when a page is requested and are not stored: nothing can get out of date, a read-only
dashboard can show them, and so can studies that an older searchae made.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.trial import FrozenTrial

from searchae.dashboard import curves, notes
from searchae.errors import SpecError
from searchae.files import ArtifactPath
from searchae.report import (
    Findings,
    Plot,
    TrialRun,
    collect_findings,
    curves_plot,
    history_plot,
    losses_plot,
    trial_run,
)
from searchae.storage import ReaderStorage
from searchae.study import (
    SPEC,
    WARM_START,
    StoredStudy,
    best_of,
    gallery_folder,
    load_study,
    picture_owner,
    read_picture,
    result_db,
    trial_row,
    trials_with_picture,
)

log = logging.getLogger(__name__)

_PICTURE_PATH = re.compile(r"/(?:api/)?artifacts/(\d{1,18})/(\d{1,18})/(curves|reconstructions)/*")
_CURVES_ALT, _RECONSTRUCTIONS_ALT = (
    "PSNR and loss by epoch",
    "Originals above, reconstructions below",
)
_REDRAW_INTERVAL = 10
"""Least time between two drawings of a study's plots, as a multiple of the time one takes."""
_LONGEST_REDRAW_S = 30.0
"""The same in seconds, at most: one takes long, too, because the database is slow or away."""


@dataclass(frozen=True)
class _Overview:
    """A study's note and plots, and the trials that they were made from."""

    trials: Sequence[FrozenTrial]
    note: str
    plots: list[dict[str, str]]
    ready_at: float
    took_s: float


@dataclass
class Overlay:
    """Makes notes, pictures and plots of the studies that searchae made.

    Attributes:
        storage: The storage with the studies.
        artifacts: The folder of the studies' artifacts, which holds the pictures.
    """

    storage: ReaderStorage
    artifacts: ArtifactPath
    _overviews: dict[int, _Overview] = field(default_factory=dict, init=False)
    _locks: defaultdict[int, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock), init=False
    )

    def stored_study(self, study_id: int) -> StoredStudy | None:
        """Returns a study; None if searchae did not make it, is making it, or cannot read it.

        Raises:
            KeyError: There is no study with this id.
        """
        if SPEC not in self.storage.get_study_user_attrs(study_id):
            return None
        try:
            return load_study(self.storage, self.storage.get_study_name_from_id(study_id))
        except SpecError as e:
            log.warning("study %d is shown without notes and pictures: %s", study_id, e)
            return None

    def pictured_trials(self, stored: StoredStudy, trials: Sequence[FrozenTrial]) -> set[int]:
        """Returns the numbers of the trials that have a picture of reconstructions."""
        folder, owner = gallery_folder(self.artifacts, stored.folder), picture_owner(stored)
        return trials_with_picture(folder, _psnrs_db(trials), owner=owner)

    def trial_note_and_pictures(
        self, stored: StoredStudy, trial: FrozenTrial, trial_id: int, *, has_picture: bool
    ) -> tuple[str, list[dict[str, Any]]]:
        """Returns a trial's note, and its pictures in the dashboard's format of artifacts.

        Args:
            stored: The trial's study.
            trial: The trial.
            trial_id: Its id in the database.
            has_picture: Whether there is a picture of reconstructions.
        """
        shown, files = {}, []
        url = f"/artifacts/{stored.id}/{trial_id}"
        if has_picture:
            shown[_RECONSTRUCTIONS_ALT] = f"{url}/reconstructions"
            files.append(_artifact("reconstructions", "reconstructions.png", "image/png"))
        if trial.intermediate_values:
            # The number of epochs makes the browser load a new picture after each epoch.
            shown[_CURVES_ALT] = f"{url}/curves?{len(trial.intermediate_values)}"
            files.append(_artifact("curves", "curves.svg", "image/svg+xml"))
        row = trial_row(stored.spec, trial)
        return notes.trial_note(stored, row, trial.user_attrs, shown), files

    def study_note_and_plots(
        self, stored: StoredStudy, trials: Sequence[FrozenTrial], pictured: set[int]
    ) -> tuple[str, list[dict[str, str]]]:
        """Returns a study's note, and its plots in the dashboard's format.

        For a large running study they may be some seconds old, so that not every request waits
        for a new drawing.

        Args:
            stored: The study.
            trials: All its trials.
            pictured: Numbers of the trials with a picture of reconstructions.
        """
        with self._locks[stored.id]:
            cached, now = self._overviews.get(stored.id), time.monotonic()
            if cached is None or (
                now - cached.ready_at > min(_REDRAW_INTERVAL * cached.took_s, _LONGEST_REDRAW_S)
                and not _are_same(cached.trials, trials)
            ):
                cached = self._draw(stored, trials, pictured, now)
                self._overviews[stored.id] = cached
            return cached.note, cached.plots

    def picture(self, study_id: int, trial_id: int, name: str) -> tuple[str, bytes] | None:
        """Returns one of a trial's pictures.

        Args:
            study_id: The study's id in the database.
            trial_id: The trial's id in the database.
            name: ``curves`` or ``reconstructions``.

        Returns:
            Its media type and bytes; None if there is no such picture.
        """
        try:
            stored = self.stored_study(study_id)
            trials = self.storage.get_all_trials(study_id)
        except KeyError:
            return None
        numbers = {i: number for number, i in self.storage.trial_ids(study_id).items()}
        trial = next((t for t in trials if t.number == numbers.get(trial_id)), None)
        if stored is None or trial is None:
            return None
        if name == "reconstructions":
            psnr_db = _psnrs_db([trial]).get(trial.number)
            folder = gallery_folder(self.artifacts, stored.folder)
            owner = picture_owner(stored)
            png = psnr_db and read_picture(folder, trial.number, psnr_db=psnr_db, owner=owner)
            return ("image/png", png) if png else None
        svg = curves.draw_curves(
            trial_run(stored.spec, trial),
            best=_best(stored, trials),
            baseline_db=stored.baseline_db,
        )
        return "image/svg+xml", svg.encode()

    def _draw(
        self, stored: StoredStudy, trials: Sequence[FrozenTrial], pictured: set[int], started: float
    ) -> _Overview:
        found = collect_findings(stored, artifacts=None)
        winner = found.best[0].row.number if found.best else -1
        path = ""
        if winner in pictured:
            trial_id = self.storage.trial_ids(stored.id)[winner]
            path = f"/artifacts/{stored.id}/{trial_id}/reconstructions"
        return _Overview(
            trials=trials,
            note=notes.study_note(found.summary, path),
            plots=_plots(found),
            ready_at=time.monotonic(),
            took_s=time.monotonic() - started,
        )


def serve_pictures(inner: WSGIApplication, overlay: Overlay) -> WSGIApplication:
    """Returns WSGI middleware that serves the overlay's pictures and passes on the rest."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match = _PICTURE_PATH.fullmatch(environ.get("PATH_INFO", ""))
        if not match:
            return inner(environ, start)
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            reason = "searchae draws this picture itself: there is no file to change"
            status, kind, body = "403 Forbidden", "application/json", _json({"reason": reason})
        elif found := overlay.picture(int(match[1]), int(match[2]), match[3]):
            status, (kind, body) = "200 OK", found
        else:
            status, kind, body = "404 Not Found", "application/json", _json({"reason": "no such"})
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [b"" if method == "HEAD" else body]

    return app


def _plots(found: Findings) -> list[dict[str, str]]:
    plots = (history_plot(found), curves_plot(found), losses_plot(found))
    return [
        {"id": f"searchae:{plot.name}", "graph_object": _plotly_json(plot)}
        for plot in plots
        if plot.figure is not None
    ]


def _plotly_json(plot: Plot) -> str:
    title = {
        "text": f"<b>{plot.title}</b>",
        "x": 0.01,
        "y": 0.98,
        "yanchor": "top",
        "font": {"size": 16},
    }
    plot.figure.update_layout(title=title, margin={"t": 70})
    text: str = plot.figure.to_json()
    return text


def _artifact(name: str, filename: str, kind: str) -> dict[str, Any]:
    return {"artifact_id": name, "filename": filename, "mimetype": kind, "encoding": None}


def _psnrs_db(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Number -> PSNR in dB of the trials with a result."""
    found = {trial.number: result_db(trial) for trial in trials}
    return {number: psnr_db for number, psnr_db in found.items() if psnr_db is not None}


def _best(stored: StoredStudy, trials: Sequence[FrozenTrial]) -> TrialRun | None:
    own = {t.number: t for t in trials if WARM_START not in t.user_attrs}
    row = best_of([trial_row(stored.spec, t) for t in own.values()])
    return trial_run(stored.spec, own[row.number]) if row else None


def _are_same(one: Sequence[FrozenTrial], other: Sequence[FrozenTrial]) -> bool:
    # The reader returns a finished trial as the same object each time.
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _json(document: dict[str, str]) -> bytes:
    return json.dumps(document).encode()
