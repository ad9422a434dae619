"""WSGI middleware that answers requests for a study and its trials from memory.

Optuna's dashboard serializes every trial for each request, which takes 6 seconds for 10,000
trials of 50 epochs, and searches the notes on all trials for each trial's note. Here the dashboard
is asked for the study without trials. The trials are added from a cache of their JSON text, each
with a note and pictures (see ``added_content``).
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.trial import FrozenTrial, TrialState

from searchae.dashboard.added_content import Overlay
from searchae.dashboard.trial_json import trial_document, trial_json
from searchae.storage import ReaderStorage
from searchae.study import HISTORY, StoredStudy

_STUDY_PATH = re.compile(r"/api/studies/(\d{1,18})/*")
_SKIP_ALL_TRIALS = 10**9
"""As the ``after`` parameter: the dashboard then returns no trials."""
_TRIAL_ATTRIBUTE = re.compile(r"dashboard:(?:artifacts:)?(\d+):")
"""Key of a study's system attribute that belongs to one trial; the group is the trial's id."""
MOST_CURVES, BEST_CURVES = 300, 50
"""Studies with more than ``MOST_CURVES`` trials show the intermediate values of the
``BEST_CURVES`` best only: a browser needs two and a half minutes to draw 10,000 curves."""


@dataclass(frozen=True, eq=False)
class _TrialSource:
    """What one trial's JSON text is made from."""

    trial: FrozenTrial
    trial_id: int
    attributes: Mapping[str, Any]
    has_picture: bool

    def equals(self, other: _TrialSource) -> bool:
        # The reader returns the same object for a finished trial each time.
        return (
            self.trial is other.trial
            and self.trial_id == other.trial_id
            and self.attributes == other.attributes
            and self.has_picture == other.has_picture
        )


@dataclass(frozen=True)
class _CachedTrial:
    source: _TrialSource
    json_text: str


@dataclass
class StudyDetails:
    """WSGI middleware that answers ``GET /api/studies/ID?after=N`` and passes on the rest.

    Attributes:
        inner: Optuna's dashboard.
        storage: The storage that it shows.
        overlay: Adds notes, pictures and plots.
    """

    inner: WSGIApplication
    storage: ReaderStorage
    overlay: Overlay
    _cache: defaultdict[int, dict[int, _CachedTrial]] = field(
        default_factory=lambda: defaultdict(dict), init=False
    )
    _locks: defaultdict[int, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock), init=False
    )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        match = _STUDY_PATH.fullmatch(environ.get("PATH_INFO", ""))
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[-1]
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD") or not match or not after.isdecimal():
            return self.inner(environ, start_response)
        without_trials = {"REQUEST_METHOD": "GET", "QUERY_STRING": f"after={_SKIP_ALL_TRIALS}"}
        status, headers, body = call_wsgi(self.inner, {**environ, **without_trials})
        if status.startswith("200"):
            body = self._with_trials(json.loads(body), int(match[1]), int(after))
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body] if method == "GET" else []

    def preload(self, study_id: int) -> None:
        """Reads a study and fills the cache before the first request for it.

        Args:
            study_id: The study's id in the database.

        Raises:
            KeyError: There is no such study.
        """
        with self._locks[study_id]:
            stored, cached = self._update(study_id)
        if stored is not None:
            self.overlay.study_note_and_plots(stored, *_trials_and_pictures(cached))

    def _with_trials(self, study: dict[str, Any], study_id: int, after: int) -> bytes:
        with self._locks[study_id]:  # one request fills the cache, the others use it
            stored, cached = self._update(study_id)
        trials, pictured = _trials_and_pictures(cached)
        if stored is not None:
            hidden = _unreadable(stored.study.user_attrs)
            study["user_attrs"] = [a for a in study["user_attrs"] if a["key"] not in hidden]
            note, plots = self.overlay.study_note_and_plots(stored, trials, pictured)
            study["note"]["body"] = study["note"]["body"] or note
            study["plotly_graph_objects"] += plots
        if study["has_intermediate_values"] and len(trials) > MOST_CURVES:
            # Only hides the plot of all curves; the trials keep their values.
            study["has_intermediate_values"] = False
            if stored is None:
                figure = _best_curves(trials, study["directions"][0])
                study["plotly_graph_objects"].append({"id": "curves", "graph_object": figure})
        del study["trials"]
        texts = ", ".join([c.json_text for c in cached[after:]])
        return f'{json.dumps(study)[:-1]}, "trials": [{texts}]}}'.encode()

    def _update(self, study_id: int) -> tuple[StoredStudy | None, list[_CachedTrial]]:
        """Writes what has changed; returns the study (if searchae made it) and all its trials."""
        attributes_of: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for key, value in self.storage.get_study_system_attrs(study_id).items():
            if match := _TRIAL_ATTRIBUTE.match(key):
                attributes_of[int(match[1])][key] = value
        stored, trials = self.overlay.stored_study(study_id), self.storage.get_all_trials(study_id)
        # After the trials: none of them lacks an id then.
        trial_ids = self.storage.trial_ids(study_id)
        pictured = self.overlay.pictured_trials(stored, trials) if stored is not None else set()
        old, new = self._cache[study_id], {}
        for trial in trials:
            trial_id = trial_ids[trial.number]
            attributes = attributes_of.get(trial_id, {})
            source = _TrialSource(trial, trial_id, attributes, trial.number in pictured)
            cached = old.get(trial.number)
            if cached is None or not cached.source.equals(source):
                cached = _CachedTrial(source, self._trial_json(stored, study_id, source))
            new[trial.number] = cached
        self._cache[study_id] = new
        return stored, list(new.values())

    def _trial_json(self, stored: StoredStudy | None, study_id: int, source: _TrialSource) -> str:
        document = trial_document(
            source.trial,
            trial_id=source.trial_id,
            study_id=study_id,
            study_attributes=source.attributes,
            hidden_attributes=_unreadable(source.trial.user_attrs),
        )
        if stored is not None:
            note, pictures = self.overlay.trial_note_and_pictures(
                stored, source.trial, source.trial_id, has_picture=source.has_picture
            )
            document["note"]["body"] = document["note"]["body"] or note
            document["artifacts"] += pictures
        reports = source.trial.intermediate_values
        if stored is None:
            return trial_json(document, reports)
        epochs_at = stored.spec.search.epochs_at
        return trial_json(document, {epochs_at(step): v for step, v in reports.items()})


def _unreadable(attributes: Mapping[str, Any]) -> set[str]:
    """Returns the keys of searchae's attributes that hold JSON, which a page would show as it is.

    What of them a person wants stands in the notes; the history is drawn as curves.
    """
    return {HISTORY} | {
        key
        for key, value in attributes.items()
        if key.startswith("searchae:") and isinstance(value, dict | list)
    }


def call_wsgi(
    app: WSGIApplication, environ: WSGIEnvironment
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Calls a WSGI application and returns its whole response: status, headers, body."""
    response: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Any:
        response[:] = [status, headers]
        return lambda _: None

    chunks = app(environ, start)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return response[0], response[1], body


def _trials_and_pictures(cached: list[_CachedTrial]) -> tuple[list[FrozenTrial], set[int]]:
    """Returns the trials, and the numbers of those with a picture."""
    sources = [c.source for c in cached]
    return [s.trial for s in sources], {s.trial.number for s in sources if s.has_picture}


def _best_curves(trials: list[FrozenTrial], direction: str) -> str:
    """Returns a plotly figure, as JSON, of the best and the running trials' values by step."""
    sign = -1 if direction == "maximize" else 1
    ended = [t for t in trials if t.state == TrialState.COMPLETE and t.values]
    best = sorted(ended, key=lambda t: sign * t.values[0])[:BEST_CURVES]
    running = [t for t in trials if t.state == TrialState.RUNNING][:BEST_CURVES]
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"trial #{t.number}",
            "x": sorted(t.intermediate_values),
            "y": [
                value if math.isfinite(value) else None
                for _, value in sorted(t.intermediate_values.items())
            ],
        }
        for t in best + running
    ]
    title = f"Intermediate values of the {len(best)} best of {len(trials)} trials"
    if running:
        title += f", and of {len(running)} running"
    axes = {"xaxis": {"title": {"text": "Step"}}, "yaxis": {"title": {"text": "Objective Value"}}}
    return json.dumps({"data": lines, "layout": {"title": {"text": title}, **axes}})
