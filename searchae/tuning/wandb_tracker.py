"""Sends trials to Weights & Biases, through its own library.

A study is a group, and each trial a run that is written once the trial has ended. A run's id
follows from the study and the trial's number. A file beside what wandb writes says that it was
written to its end, so that a search that goes on does not write it again, offline either.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from searchae.errors import UserError

if TYPE_CHECKING:
    from searchae.report import TrialRun
    from searchae.tuning.trackers import TrackedStudy

PROJECT = "searchae"
"""The project where the user names none in ``WANDB_PROJECT``."""
WRITTEN = "searchae-written"
"""The file that says that a run was written to its end."""
WAIT_S = 15.0
"""Seconds that W&B gets to begin a run, and to take what is left of it."""
COLUMNS = ("train_mse", "val_mse", "psnr_of_mse_db", "sparsity")


class WandbTracker:
    """Implements ``Tracker``.

    Raises:
        UserError: There is no login; wandb would ask for one on the terminal.
    """

    variable = "WANDB_API_KEY"
    defaults: Mapping[str, str] = MappingProxyType({"WANDB_SILENT": "true"})

    def __init__(self) -> None:
        mode = os.environ.get("WANDB_MODE", "online")
        if mode in ("online", "shared") and not os.environ.get(self.variable) and not _in_netrc():
            raise UserError(
                f"--track wandb: no login: set {self.variable}, type `wandb login`, or set "
                "WANDB_MODE=offline and send the runs later with `wandb sync`"
            )

    @property
    def address(self) -> str:
        """Where it sends to."""
        return _address()

    def open(self, study: TrackedStudy) -> set[int]:
        """Finds the trials that this folder has written already."""
        import wandb

        self._wandb, self._study = wandb, study
        self._best: TrialRun | None = None
        found = (_run_id(file.parent) for file in self._folder().glob(f"*run-*/{WRITTEN}"))
        ids = (run_id.rpartition("-") for run_id in found)
        self._held = {int(n) for owner, _, n in ids if owner == study.id and n.isdecimal()}
        self._has_news = False
        return set(self._held)

    def send(self, run: TrialRun, *, is_ended: bool) -> None:
        """Writes a trial that has ended."""
        if not is_ended:
            return
        row = run.row
        tags = [tag for tag in (row.state, row.outcome) if tag]
        with self._run(str(row.number), f"trial {row.number}", dict(row.params), tags) as written:
            written.define_metric("*", step_metric="epoch")
            for values in _rows(run):
                written.log(values)
            written.summary.update(_summary(run))
        self._has_news = True

    def mark_best(self, run: TrialRun) -> None:
        """Notes the best trial, for the study's own run."""
        self._best = run

    def close(self, pictures: Mapping[int, bytes], *, end: str) -> None:
        """Writes the study's own run, with the best trial and its pictures, if there is news."""
        if not self._has_news or self._best is None:
            return
        best = self._best
        config = {**self._study.document, **self._study.facts}
        with self._run("study", self._study.name, config, [end]) as written:
            written.summary.update({"best_trial": best.row.number, "best_psnr_db": best.psnr_db})
            shown = [_picture(self._wandb, number, png) for number, png in pictures.items()]
            if shown:
                written.log({"reconstructions": shown})

    def send_bundle(self, folder: Path, *, trial: int, metrics: Mapping[str, Any]) -> str:
        """Adds a bundle as a model, whose versions W&B tells apart by their content."""
        name = f"bundle of trial {trial}"
        with self._run(f"bundle-{trial}", name, dict(metrics["params"]), ["bundle"]) as written:
            artifact = self._wandb.Artifact(f"searchae-{self._study.id}", type="model")
            artifact.add_dir(str(folder))
            written.log_artifact(artifact)
            written.summary.update({"test_psnr_db": metrics["psnr_db"]})
        return f"--track: the bundle is an artifact of the run {name!r}"

    @contextmanager
    def _run(
        self, suffix: str, name: str, config: dict[str, Any], tags: list[str]
    ) -> Iterator[Any]:
        """Writes a run, and marks it as written."""
        settings = self._wandb.Settings(
            console="off",
            silent=True,
            init_timeout=WAIT_S,
            finish_timeout=WAIT_S,
            finish_timeout_raises=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=self._study.name,
            id=f"{self._study.id}-{suffix}",
            name=name,
            config=config,
            tags=tags,
            resume="allow",
            reinit="create_new",  # several runs of one process
            save_code=False,
            settings=settings,
        )
        try:
            yield run
        except BaseException:
            run.finish(exit_code=1)
            raise
        folder = Path(run.dir).parent
        run.finish()
        if folder.is_dir():  # not if WANDB_MODE=disabled
            (folder / WRITTEN).touch()

    def _folder(self) -> Path:
        return Path(os.environ.get("WANDB_DIR") or ".") / "wandb"


def _run_id(folder: Path) -> str:
    """Returns the id of the run in a folder, such as ``offline-run-20260101_120000-ID``."""
    return folder.name.partition("run-")[2].partition("-")[2]


def _address() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def _in_netrc() -> bool:
    host = urlsplit(_address()).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _rows(run: TrialRun) -> Iterator[dict[str, float]]:
    """Yields what is known at each number of epochs; it may be a share of the first one."""
    by_column = {name: run.history_by_epoch(name) for name in COLUMNS if run.history}
    steps = sorted(run.reports.keys() | {e for column in by_column.values() for e in column})
    for epoch in steps:
        found = {name: column[int(epoch)] for name, column in by_column.items() if epoch in column}
        psnr_db = {"psnr_db": run.reports[epoch]} if epoch in run.reports else {}
        yield {"epoch": epoch, **psnr_db, **found}


def _summary(run: TrialRun) -> dict[str, Any]:
    row = run.row
    result = {"result_psnr_db": run.psnr_db} if run.is_good else {}
    values = {f"result_{k}": v for k, v in row.values.items() if k != "psnr"}
    return {
        "trial": row.number,
        "state": row.state,
        "outcome": row.outcome,
        "worker": row.worker,
        "epochs": row.epochs,
        "seconds": row.seconds,
        **(values if run.is_good else {}),
        **result,
    }


def _picture(wandb: Any, number: int, png: bytes) -> Any:
    import io

    from PIL import Image

    return wandb.Image(Image.open(io.BytesIO(png)), caption=f"trial {number}")
