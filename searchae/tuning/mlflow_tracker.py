"""Sends trials to an MLflow server, through MLflow's own client.

A study is a run, and each trial a run nested in it. The runs are found by tags, so that a search
that goes on, after whatever, goes on in the same runs.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchae import __version__
from searchae.errors import UserError

if TYPE_CHECKING:
    from searchae.report import TrialRun
    from searchae.tuning.trackers import TrackedStudy

DEFAULTS = {
    # MLflow's own would wait for minutes for a server that is away.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of MLflow's that are set where the user has not."""
EXPERIMENT = "searchae"
"""The experiment where the user names none."""
STUDY_ID, TRIAL, SENT, BUNDLE = (
    "searchae.study_id",
    "searchae.trial",
    "searchae.sent",
    "searchae.bundle",
)
MODEL = "model"
"""The folder of a bundle among the artifacts of its run."""
BEST_DB = "best_psnr_db"
METRICS_PER_REQUEST = 800
"""MLflow takes 1,000 metrics, parameters and tags at once."""
HISTORY = ("train_mse", "val_mse", "psnr_of_mse_db", "sparsity")
"""Columns of a trial's history that are sent when it has ended."""
STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "running": "RUNNING"}
"""State of a trial -> MLflow's word; ``SCHEDULED`` for one that has been put back."""
ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass
class _Sent:
    """What is known of a run: its id, and the metrics that it has, by name and step."""

    run_id: str
    points: set[tuple[str, int]] = field(default_factory=set)
    status: str = ""


class MlflowTracker:
    """Implements ``Tracker``.

    Raises:
        UserError: ``MLFLOW_TRACKING_URI`` is not set.
    """

    variable = "MLFLOW_TRACKING_URI"
    defaults: Mapping[str, str] = DEFAULTS

    def __init__(self) -> None:
        if not os.environ.get(self.variable):
            raise UserError(
                f"--track mlflow: set {self.variable} to the server's address, such as "
                "http://127.0.0.1:5000"
            )

    @property
    def address(self) -> str:
        """Where it sends to."""
        return os.environ.get(self.variable, "")

    def open(self, study: TrackedStudy) -> set[int]:
        """Finds or makes the study's run, and the runs of its trials."""
        from mlflow.tracking import MlflowClient  # takes a second

        self._study, self._client = study, MlflowClient()
        self._experiment = self._open_experiment()
        self._best: int | None = None
        self._parent, self._runs = _Sent(""), dict[int, _Sent]()
        held = set()
        for run in self._found():
            tags = run.data.tags
            if TRIAL in tags:
                number = int(tags[TRIAL])
                self._runs[number] = _Sent(run.info.run_id, status=run.info.status)
                if tags.get(SENT) == "true":
                    held.add(number)
                else:
                    self._runs[number].points = self._points(run)
                if tags.get("searchae.best") == "true":
                    self._best = number
            elif BUNDLE not in tags:
                self._parent = _Sent(run.info.run_id, self._points(run), run.info.status)
        if not self._parent.run_id:
            self._parent = self._create_parent()
        return held

    def send(self, run: TrialRun, *, is_ended: bool) -> None:
        """Adds a trial, or what is new in it."""
        row = run.row
        if self._parent.status != "RUNNING":  # the study goes on
            self._client.update_run(self._parent.run_id, status="RUNNING")
            self._parent.status = "RUNNING"
        sent = self._runs.get(row.number) or self._create_trial(run)
        points = dict(_points(run, with_history=is_ended))
        status = "FAILED" if row.outcome else STATUS.get(row.state, "SCHEDULED")
        if is_ended:
            ended_ms = int(run.ended.timestamp() * 1000) if run.ended else None
            self._client.set_terminated(sent.run_id, status=status, end_time=ended_ms)
        elif status != sent.status:
            self._client.update_run(sent.run_id, status=status)
        sent.status = status
        tags = {
            "searchae.state": row.state,
            "searchae.outcome": row.outcome,
            "searchae.worker": row.worker,
            **{f"searchae.{k}": str(run.runtime.get(k, "")) for k in ("host", "device")},
            "searchae.error": run.error[-2000:],
            **({SENT: "true"} if is_ended else {}),
        }
        new = {point: value for point, value in points.items() if point not in sent.points}
        self._log(sent.run_id, new, params=row.params, tags=tags)
        sent.points |= new.keys()

    def mark_best(self, run: TrialRun) -> None:
        """Marks the best trial, and no other."""
        number = run.row.number
        if number == self._best or number not in self._runs:
            return
        if self._best is not None:
            self._client.set_tag(self._runs[self._best].run_id, "searchae.best", "false")
        self._client.set_tag(self._runs[number].run_id, "searchae.best", "true")
        tags = {"searchae.best_trial": str(number), "searchae.best_run": self._runs[number].run_id}
        point = (BEST_DB, number)
        new = {} if point in self._parent.points else {point: run.psnr_db}
        self._log(self._parent.run_id, new, tags=tags)
        self._parent.points.add(point)
        self._best = number

    def close(self, pictures: Mapping[int, bytes], *, end: str) -> None:
        """Sends the pictures, and ends the study's run."""
        self._client.set_terminated(self._parent.run_id, status=ENDS[end])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "reconstructions.png"
            for number, png in pictures.items():
                file.write_bytes(png)
                self._client.log_artifact(self._runs[number].run_id, str(file))

    def send_bundle(self, folder: Path, *, trial: int, metrics: Mapping[str, Any]) -> str:
        """Adds a bundle as a run of its own, and registers it as a version of a model."""
        weights = json.loads((folder / "config.json").read_text())["weights_sha256"]
        name = _clean(self._study.name)
        found = next((r for r in self._found() if r.data.tags.get(BUNDLE) == weights), None)
        run_id = found.info.run_id if found else self._create_bundle(weights, trial, metrics)
        if found is None or found.data.tags.get(SENT) != "true":
            self._client.log_artifacts(run_id, str(folder), MODEL)
            self._client.set_terminated(run_id)
            self._client.set_tag(run_id, SENT, "true")
        if not self._runs:  # the search itself is not tracked
            self._client.set_terminated(self._parent.run_id)
        version = self._register(name, run_id)
        return f"--track: the bundle is version {version} of the model {name!r}"

    def _create_bundle(self, weights: str, trial: int, metrics: Mapping[str, Any]) -> str:
        run_id = self._create_run(f"bundle of trial {trial}", {BUNDLE: weights})
        measured = {
            (f"test_{k}", 0): float(metrics[k])
            for k in ("psnr_db", "ssim", "mse", "sparsity")
            if isinstance(metrics.get(k), int | float)
        }
        self._log(run_id, measured, params=metrics["params"])
        return run_id

    def _register(self, name: str, run_id: str) -> str:
        from mlflow.exceptions import MlflowException

        for version in self._client.search_model_versions(f"run_id = '{run_id}'"):
            return str(version.version)
        try:
            self._client.get_registered_model(name)
        except MlflowException as e:
            if e.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(name, description="searchae bundles")
        source = f"runs:/{run_id}/{MODEL}"
        made = self._client.create_model_version(name, source, run_id, await_creation_for=0)
        return str(made.version)

    def _open_experiment(self) -> str:
        if found := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return found
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))

    def _found(self) -> Iterator[Any]:
        """Yields the study's run and those nested in it; of doubles the first made comes last."""
        token, query = None, f"tags.`{STUDY_ID}` = '{self._study.id}'"
        while True:
            page = self._client.search_runs(
                [self._experiment],
                query,
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            yield from page
            if not (token := page.token):
                return

    def _points(self, run: Any) -> set[tuple[str, int]]:
        """Reads which metrics a run has: the names are known, the steps are asked for."""
        run_id, names = run.info.run_id, run.data.metrics
        return {
            (name, m.step) for name in names for m in self._client.get_metric_history(run_id, name)
        }

    def _create_parent(self) -> _Sent:
        run_id = self._create_run(self._study.name, {}, is_nested=False)
        facts = {f"searchae.{k}": v for k, v in self._study.facts.items()}
        self._log(run_id, {}, tags={"searchae.version": __version__, **facts})
        self._client.log_dict(run_id, self._study.document, "study.json")
        return _Sent(run_id, status="RUNNING")

    def _create_trial(self, run: TrialRun) -> _Sent:
        number, started = run.row.number, run.started
        began_ms = int(started.timestamp() * 1000) if started else None
        run_id = self._create_run(f"trial {number}", {TRIAL: str(number)}, began_ms=began_ms)
        self._runs[number] = _Sent(run_id, status="RUNNING")
        return self._runs[number]

    def _create_run(
        self,
        name: str,
        tags: Mapping[str, str],
        *,
        is_nested: bool = True,
        began_ms: int | None = None,
    ) -> str:
        found = {
            "mlflow.runName": name,
            STUDY_ID: self._study.id,
            "searchae.study": self._study.name,
            **({"mlflow.parentRunId": self._parent.run_id} if is_nested else {}),
            **tags,
        }
        run = self._client.create_run(self._experiment, start_time=began_ms, tags=found)
        return str(run.info.run_id)

    def _log(
        self,
        run_id: str,
        points: Mapping[tuple[str, int], float],
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Sends metrics, parameters and tags: these last, for one says that all has been sent."""
        from mlflow.entities import Metric, Param, RunTag

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for (name, step), value in points.items()]
        while len(metrics) > METRICS_PER_REQUEST:
            self._client.log_batch(run_id, metrics=metrics[:METRICS_PER_REQUEST])
            del metrics[:METRICS_PER_REQUEST]
        self._client.log_batch(
            run_id,
            metrics=metrics,
            params=[Param(_clean(k), _text(v)) for k, v in (params or {}).items()],
            tags=[RunTag(k, v) for k, v in (tags or {}).items()],
        )


def _points(run: TrialRun, *, with_history: bool) -> Iterator[tuple[tuple[str, int], float]]:
    """Yields a trial's metrics by name and step, which is the epoch.

    MLflow's steps are whole numbers: a report within the first epoch is a metric of its own, whose
    step is the share of the epoch in percent.
    """
    for epochs, psnr_db in run.reports.items():
        if epochs == int(epochs):
            yield ("psnr_db", int(epochs)), psnr_db
        else:
            yield ("psnr_db_within_epoch", round(100 * epochs)), psnr_db
    if not with_history:
        return
    for name in HISTORY if run.history else ():
        for epoch, value in run.history_by_epoch(name).items():
            yield (name, epoch), value
    yield ("epochs", 0), run.row.epochs
    if run.row.seconds is not None:
        yield ("seconds", 0), run.row.seconds
    if run.is_good:
        yield ("result_psnr_db", 0), run.psnr_db
        for name, value in run.row.values.items():
            if name != "psnr":
                yield (f"result_{_clean(name)}", 0), value


def _clean(name: str) -> str:
    """Returns a name that MLflow takes."""
    return re.sub(r"[^\w. -]", "_", name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
