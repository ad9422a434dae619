"""What searchae adds to Optuna's pages: notes, pictures and plots, made when they are looked at.

None of it is stored, so there is nothing to keep in step, nothing that a visitor who may only read
cannot have, and studies that are older than this have it too.
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
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.trial import FrozenTrial

from searchae.dashboard import curves, notes
from searchae.errors import SpecError
from searchae.report import (
    Findings,
    Plot,
    Run,
    collect_findings,
    curves_plot,
    history_plot,
    losses_plot,
    run_of,
)
from searchae.storage import ReaderStorage
from searchae.study import (
    SPEC,
    WARM_START,
    StoredStudy,
    best_of,
    gallery_folder,
    load_study,
    read_picture,
    result_db,
    trial_row,
    trials_with_picture,
)

log = logging.getLogger(__name__)

_PICTURE = re.compile(r"/(?:api/)?artifacts/(\d{1,18})/(\d{1,18})/(curves|reconstructions)/*")
_CURVES, _PICTURES = "PSNR and loss by epoch", "Originals above, reconstructions below"
_REST = 10
"""A study's plots are drawn anew after this many times as long as drawing them took."""


@dataclass(frozen=True)
class _Overview:
    """A study's note and plots, and what they were made from."""

    trials: Sequence[FrozenTrial]
    note: str
    plots: list[dict[str, str]]
    ready_at: float
    took_s: float


@dataclass
class Overlay:
    """What can be said and drawn of the studies that searchae made.

    Attributes:
        storage: The studies.
        artifacts: Folder of the studies' artifacts; pictures come from there.
    """

    storage: ReaderStorage
    artifacts: Path
    _overviews: dict[int, _Overview] = field(default_factory=dict, init=False)
    _locks: defaultdict[int, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock), init=False
    )

    def study(self, study_id: int) -> StoredStudy | None:
        """A study; None where searchae did not make it, is making it, or no longer reads it."""
        if SPEC not in self.storage.get_study_user_attrs(study_id):
            return None
        try:
            return load_study(self.storage, self.storage.get_study_name_from_id(study_id))
        except SpecError as e:
            log.warning("study %d is shown without notes and pictures: %s", study_id, e)
            return None

    def pictured(self, stored: StoredStudy, trials: Sequence[FrozenTrial]) -> set[int]:
        """Numbers of the trials that have a picture."""
        return trials_with_picture(gallery_folder(self.artifacts, stored.name), _psnrs_db(trials))

    def trial(
        self, stored: StoredStudy, trial: FrozenTrial, *, pictured: bool
    ) -> tuple[str, list[dict[str, Any]]]:
        """A trial's note, and its pictures as the dashboard lists artifacts."""
        shown, files = {}, []
        where = f"/artifacts/{stored.id}/{trial._trial_id}"
        if pictured:
            shown[_PICTURES] = f"{where}/reconstructions"
            files.append(_artifact("reconstructions", "reconstructions.png", "image/png"))
        if trial.intermediate_values:
            # The number is for the browser: another epoch, another picture.
            shown[_CURVES] = f"{where}/curves?{len(trial.intermediate_values)}"
            files.append(_artifact("curves", "curves.svg", "image/svg+xml"))
        row = trial_row(stored.spec, trial)
        return notes.trial_note(stored, row, trial.user_attrs, shown), files

    def overview(
        self, stored: StoredStudy, trials: Sequence[FrozenTrial], pictured: set[int]
    ) -> tuple[str, list[dict[str, str]]]:
        """A study's note, and its plots as the dashboard lists them.

        Of a large study that runs they are some seconds old: each answer would wait for them.
        """
        with self._locks[stored.id]:
            known, now = self._overviews.get(stored.id), time.monotonic()
            if known is None or (
                now - known.ready_at > _REST * known.took_s and not _same(known.trials, trials)
            ):
                known = self._draw(stored, trials, pictured, now)
                self._overviews[stored.id] = known
            return known.note, known.plots

    def file(self, study_id: int, trial_id: int, name: str) -> tuple[str, bytes] | None:
        """One of a trial's pictures.

        Args:
            study_id: As the database has it.
            trial_id: The same.
            name: ``curves`` or ``reconstructions``.

        Returns:
            Its media type and bytes; None where there is none.
        """
        try:
            stored = self.study(study_id)
            trials = self.storage.get_all_trials(study_id)
        except KeyError:
            return None
        trial = next((t for t in trials if t._trial_id == trial_id), None)
        if stored is None or trial is None:
            return None
        if name == "reconstructions":
            psnr_db = _psnrs_db([trial]).get(trial.number)
            folder = gallery_folder(self.artifacts, stored.name)
            png = psnr_db and read_picture(folder, trial.number, psnr_db=psnr_db)
            return ("image/png", png) if png else None
        svg = curves.draw_curves(
            run_of(stored.spec, trial), best=_best(stored, trials), baseline_db=stored.baseline_db
        )
        return "image/svg+xml", svg.encode()

    def _draw(
        self, stored: StoredStudy, trials: Sequence[FrozenTrial], pictured: set[int], started: float
    ) -> _Overview:
        found = collect_findings(stored, artifacts=None)
        winner = found.best[0].row.number if found.best else -1
        path = ""
        if winner in pictured:
            trial = next(t for t in trials if t.number == winner)
            path = f"/artifacts/{stored.id}/{trial._trial_id}/reconstructions"
        return _Overview(
            trials=trials,
            note=notes.study_note(found.summary, path),
            plots=_plots(found),
            ready_at=time.monotonic(),
            took_s=time.monotonic() - started,
        )


def picture_store(inner: WSGIApplication, drawn: Overlay) -> WSGIApplication:
    """Answers for the pictures among the artifacts; the rest it passes on."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        asked = _PICTURE.fullmatch(environ.get("PATH_INFO", ""))
        if not asked:
            return inner(environ, start)
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            reason = "searchae draws this picture itself: there is no file to change"
            status, kind, body = "403 Forbidden", "application/json", _json({"reason": reason})
        elif found := drawn.file(int(asked[1]), int(asked[2]), asked[3]):
            status, (kind, body) = "200 OK", found
        else:
            status, kind, body = "404 Not Found", "application/json", _json({"reason": "no such"})
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [b"" if method == "HEAD" else body]

    return app


def _plots(found: Findings) -> list[dict[str, str]]:
    drawn = (history_plot(found), curves_plot(found), losses_plot(found))
    return [
        {"id": f"searchae:{plot.name}", "graph_object": _graph(plot)}
        for plot in drawn
        if plot.figure is not None
    ]


def _graph(plot: Plot) -> str:
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


def _best(stored: StoredStudy, trials: Sequence[FrozenTrial]) -> Run | None:
    own = {t.number: t for t in trials if WARM_START not in t.user_attrs}
    row = best_of([trial_row(stored.spec, t) for t in own.values()])
    return run_of(stored.spec, own[row.number]) if row else None


def _same(one: Sequence[FrozenTrial], other: Sequence[FrozenTrial]) -> bool:
    # The reader hands out a finished trial as the same object each time.
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _json(document: dict[str, str]) -> bytes:
    return json.dumps(document).encode()
