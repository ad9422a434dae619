"""WSGI middleware that answers ``/metrics`` in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from searchae import __version__
from searchae.storage import ReaderStorage
from searchae.study import Metrics, MetricsReader

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class MetricsPage:
    """Answers requests for the figures of all studies, and passes all others on.

    Attributes:
        inner: The dashboard.
        storage: The studies.
    """

    inner: WSGIApplication
    storage: ReaderStorage
    _reader: MetricsReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = MetricsReader(self.storage)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        method = environ["REQUEST_METHOD"]
        if environ.get("PATH_INFO") != PATH or method not in ("GET", "HEAD"):
            return self.inner(environ, start_response)
        body = metrics_text(self._reader.read()).encode()
        headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body if method == "GET" else b""]


def metrics_text(metrics: Metrics) -> str:
    """Returns the figures in the text format of Prometheus."""
    return "".join(f"{line}\n" for line in _lines(metrics))


def _lines(metrics: Metrics) -> Iterator[str]:
    found = metrics.studies
    yield from _metric("searchae_info", "gauge", "The version of searchae that answers.")
    yield _sample("searchae_info", {"version": __version__}, 1)
    yield from _metric("searchae_trials", "gauge", "Trials of a study by state.")
    for study in found:
        for state, count in study.trials.items():
            yield _sample("searchae_trials", {"study": study.name, "state": state}, count)
    yield from _metric("searchae_trials_budget", "gauge", "Trials to end complete or pruned.")
    yield from (_of_study("searchae_trials_budget", s.name, s.budget) for s in found)
    yield from _metric("searchae_epochs_total", "counter", "Epochs trained and reported.")
    yield from (_of_study("searchae_epochs_total", s.name, s.epochs) for s in found)
    yield from _metric("searchae_workers", "gauge", "Workers alive.")
    yield from (_of_study("searchae_workers", s.name, s.workers) for s in found)
    yield from _metric("searchae_best_psnr_db", "gauge", "Best validation PSNR so far, in dB.")
    for study in found:
        if study.best_db is not None:
            yield _of_study("searchae_best_psnr_db", study.name, study.best_db)
    name = "searchae_storage_latency_seconds"
    yield from _metric(name, "gauge", "Time that the database takes to answer.")
    yield _sample(name, {}, metrics.latency_s)


def _metric(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _of_study(name: str, study: str, value: float) -> str:
    return _sample(name, {"study": study}, value)


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
