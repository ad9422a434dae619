"""WSGI middleware that answers requests for importances with those of the report.

Optuna's dashboard counts complete trials alone: a choice that was always pruned seems not to
matter, and the report would contradict the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.trial import FrozenTrial

from searchae.dashboard.added_content import Overlay
from searchae.report import parameter_importances
from searchae.storage import ReaderStorage
from searchae.study import INVALID, WARM_START, outcome_of

_PATH = re.compile(r"/api/studies/(\d{1,18})/param_importances/*")


@dataclass
class ImportanceResponses:
    """WSGI middleware for ``GET /api/studies/ID/param_importances``; passes on the rest.

    Studies of several objectives, and those that searchae did not make, are passed on too.

    Attributes:
        inner: Optuna's dashboard.
        storage: The storage that it shows.
        overlay: Reads the studies.
    """

    inner: WSGIApplication
    storage: ReaderStorage
    overlay: Overlay
    _known: dict[int, tuple[int, bytes]] = field(default_factory=dict, init=False)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        match = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        body = self._body(int(match[1])) if match and environ["REQUEST_METHOD"] == "GET" else None
        if body is None:
            return self.inner(environ, start_response)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]

    def _body(self, study_id: int) -> bytes | None:
        try:
            stored = self.overlay.stored_study(study_id)
        except KeyError:
            return None
        if stored is None or stored.spec.search.has_several_objectives:
            return None
        trials = [
            t
            for t in self.storage.get_all_trials(study_id)
            if WARM_START not in t.user_attrs and outcome_of(stored.spec, t) != INVALID
        ]
        ended = sum(t.state.is_finished() for t in trials)
        known = self._known.get(study_id)
        if known is None or known[0] != ended:
            known = (ended, json.dumps({"param_importances": [_entries(trials)]}).encode())
            self._known[study_id] = known
        return known[1]


def _entries(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Returns the importances as the dashboard's pages expect them; empty if they are not known."""
    kinds = {name: type(d).__name__ for t in trials for name, d in t.distributions.items()}
    return [
        {"name": name, "importance": share, "distribution": kinds[name]}
        for name, share in parameter_importances(trials).shares.items()
    ]
