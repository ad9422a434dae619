"""A study's trials as the dashboard's pages ask for them: each finished one put into JSON once.

Optuna's dashboard writes all trials anew for each question, 6 seconds at 10,000 trials of 50
epochs, and looks for each trial's note among the notes of all. Here the dashboard answers
without trials, and its trials, in its own form, are put in from memory, with a note on each and
its pictures; see ``drawn``.
"""

from __future__ import annotations

import copy
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
from optuna_dashboard._serializer import serialize_frozen_trial

from searchae.dashboard.overlay import Overlay
from searchae.storage import ReaderStorage
from searchae.study import HISTORY, StoredStudy

_DETAIL = re.compile(r"/api/studies/(\d{1,18})/*")
_NO_TRIALS = 10**9
"""``after`` this many trials there are none."""
_OF_A_TRIAL = re.compile(r"dashboard:(?:artifacts:)?(\d+):")
MOST_CURVES, BEST_CURVES = 300, 50
"""A browser draws 10,000 curves for two minutes and a half: of larger studies, only the best."""


@dataclass(frozen=True)
class _Written:
    """One trial in JSON, and what it was made from."""

    trial: FrozenTrial
    attributes: Mapping[str, Any]
    pictured: bool
    text: str


@dataclass
class StudyDetail:
    """WSGI middleware that answers ``GET /api/studies/ID?after=N``; the rest it passes on.

    Attributes:
        inner: Optuna's dashboard.
        storage: What it shows.
        drawn: What is added to it.
    """

    inner: WSGIApplication
    storage: ReaderStorage
    drawn: Overlay
    _written: defaultdict[int, dict[int, _Written]] = field(
        default_factory=lambda: defaultdict(dict), init=False
    )
    _locks: defaultdict[int, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock), init=False
    )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serves one request."""
        asked = _DETAIL.fullmatch(environ.get("PATH_INFO", ""))
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[-1]
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD") or not asked or not after.isdecimal():
            return self.inner(environ, start_response)
        without = {"REQUEST_METHOD": "GET", "QUERY_STRING": f"after={_NO_TRIALS}"}
        status, headers, body = call(self.inner, {**environ, **without})
        if status.startswith("200"):
            body = self._with_trials(json.loads(body), int(asked[1]), int(after))
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body] if method == "GET" else []

    def prepare(self, study_id: int) -> None:
        """Reads a study and writes its trials before somebody asks for them."""
        with self._locks[study_id]:
            stored, trials = self._update(study_id)
        if stored is not None:
            pictured = {w.trial.number for w in trials if w.pictured}
            self.drawn.overview(stored, [w.trial for w in trials], pictured)

    def _with_trials(self, study: dict[str, Any], study_id: int, after: int) -> bytes:
        with self._locks[study_id]:  # one writes, the others take what it has written
            stored, trials = self._update(study_id)
        if stored is not None:
            pictured = {w.trial.number for w in trials if w.pictured}
            note, plots = self.drawn.overview(stored, [w.trial for w in trials], pictured)
            study["note"]["body"] = study["note"]["body"] or note
            study["plotly_graph_objects"] += plots
        if study["has_intermediate_values"] and len(trials) > MOST_CURVES:
            # The trials keep their values; only the plot of all of them is left away.
            study["has_intermediate_values"] = False
            if stored is None:
                figure = _best_curves([w.trial for w in trials], study["directions"][0])
                study["plotly_graph_objects"].append({"id": "curves", "graph_object": figure})
        del study["trials"]
        texts = ", ".join([w.text for w in trials[after:]])
        return f'{json.dumps(study)[:-1]}, "trials": [{texts}]}}'.encode()

    def _update(self, study_id: int) -> tuple[StoredStudy | None, list[_Written]]:
        written, kept = self._written[study_id], {}
        notes: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for key, value in self.storage.get_study_system_attrs(study_id).items():
            if owner := _OF_A_TRIAL.match(key):
                notes[int(owner[1])][key] = value
        stored, trials = self.drawn.study(study_id), self.storage.get_all_trials(study_id)
        pictured = self.drawn.pictured(stored, trials) if stored is not None else set()
        for trial in trials:
            attributes, has_one = notes.get(trial._trial_id, {}), trial.number in pictured
            known = written.get(trial._trial_id)
            # The reader hands out a finished trial as the same object each time.
            if (
                known is None
                or known.trial is not trial
                or known.attributes != attributes
                or known.pictured != has_one
            ):
                document = _document(study_id, trial, attributes)
                if stored is not None:
                    note, files = self.drawn.trial(stored, trial, pictured=has_one)
                    document["note"]["body"] = document["note"]["body"] or note
                    document["artifacts"] += files
                known = _Written(trial, attributes, has_one, _text(document, trial))
            kept[trial._trial_id] = known
        self._written[study_id] = kept
        return stored, list(kept.values())


def call(
    app: WSGIApplication, environ: WSGIEnvironment
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Calls an application and waits for its whole answer: status, headers, body."""
    answer: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Any:
        answer[:] = [status, headers]
        return lambda _: None

    chunks = app(environ, start)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return answer[0], answer[1], body


def _best_curves(trials: list[FrozenTrial], direction: str) -> str:
    """A plotly figure: the intermediate values of the best trials, and of those that run."""
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


def _document(study_id: int, trial: FrozenTrial, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A trial as the dashboard itself writes it, but for what it has for each epoch."""
    bare = copy.copy(trial)
    bare.intermediate_values = {}
    # The dashboard would write the beginning of it as text; its curves are drawn.
    bare.user_attrs = {k: v for k, v in trial.user_attrs.items() if k != HISTORY}
    document: dict[str, Any] = serialize_frozen_trial(study_id, bare, dict(attributes))
    del document["intermediate_values"]
    return document


def _text(document: dict[str, Any], trial: FrozenTrial) -> str:
    # By hand, since these are nearly all of it: the dashboard's own way takes six times as long.
    curve = ", ".join(
        [
            f'{{"step": {step}, "value": {_number(value)}}}'
            for step, value in sorted(trial.intermediate_values.items())
        ]
    )
    return f'{json.dumps(document)[:-1]}, "intermediate_values": [{curve}]}}'


def _number(value: float) -> str:
    text = repr(value)
    return f'"{text}"' if text in ("nan", "inf", "-inf") else text
