"""Removes a study's folder below the artifact folder once the study is deleted in the dashboard."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from searchae.dashboard.added_content import Overlay
from searchae.dashboard.trial_details import call_wsgi
from searchae.files import ArtifactPath
from searchae.study import remove_folder

log = logging.getLogger(__name__)

_STUDY_PATH = re.compile(r"/api/studies/(\d{1,18})/*")


def with_folders_removed(
    inner: WSGIApplication, overlay: Overlay, artifacts: ArtifactPath
) -> WSGIApplication:
    """Removes a deleted study's checkpoints, pictures, measurements and logs.

    A study that is renamed keeps its folder: Optuna's dashboard copies it, with all attributes.

    Args:
        inner: Optuna's dashboard.
        overlay: Finds out whether a study is searchae's.
        artifacts: The folder of all studies.
    """

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match = _STUDY_PATH.fullmatch(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "DELETE" or match is None:
            return inner(environ, start)
        try:
            stored = overlay.stored_study(int(match[1]))
        except KeyError:
            stored = None
        status, headers, body = call_wsgi(inner, environ)
        if stored is not None and status.startswith("2"):
            try:
                if left := remove_folder(artifacts, stored):
                    folder = artifacts / stored.folder
                    log.warning("%s stays, with what is not searchae's: %s", folder, left)
            except OSError as e:
                log.warning("%s is left: %s", artifacts / stored.folder, e)
        start(status, headers)
        return [body]

    return app
