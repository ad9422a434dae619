"""A study as a Python object: what ``searchae.tune`` and ``searchae.open`` return.

Its methods do what the commands do, have their options as keyword arguments, and raise their
errors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from searchae.config import folder_name
from searchae.errors import SearchaeError, UserError
from searchae.formatting import format_count, one_line
from searchae.launch import (
    FleetRequest,
    GivenPlace,
    LocalLauncher,
    check_counts,
    default_threads,
)

if TYPE_CHECKING:
    from searchae.bundle import Bundle
    from searchae.compare import ComparisonResult, Ranking
    from searchae.config import StudySpec
    from searchae.report import Findings
    from searchae.study import StoredStudy, Summary, TrialRow

COMPARED_SEEDS = 3
"""Trainings of each trial in a ranking."""


class Search:
    """A study: its trials and figures, and the nets that are trained from it.

    ``tune`` and ``open`` make it. Everything is read from the database when it is asked for, so
    that a search that still runs elsewhere can be watched.

    Attributes:
        name: The study's name.

    Examples:
        >>> search = searchae.open("quickstart")
        >>> search.status()["trials"]["complete"] > 0
        True
        >>> len(search.trials())
        4
        >>> model = search.train(out="best", epochs=2)
        >>> model.metrics["images"]
        16
    """

    def __init__(self, name: str, place: GivenPlace) -> None:
        self.name, self._place = name, place

    @property
    def spec(self) -> StudySpec:
        """What the study searches, with every default."""
        return self._stored().spec

    @property
    def best(self) -> TrialRow:
        """The trial with the best PSNR on the validation split.

        Raises:
            UserError: No trial has trained to its end yet.
        """
        summary = self._summary()
        if summary.best is None:
            raise UserError(f"study {self.name!r}: no trial has trained to its end yet")
        return summary.best

    def status(self) -> dict[str, Any]:
        """Returns how far the search is, as ``searchae status --json`` prints it."""
        summary = self._summary()
        return {**summary.document(), "workers": [asdict(w) for w in summary.workers]}

    def trials(self) -> Any:
        """Returns the trials, a row each.

        Parameters are named ``params_NAME``; times are in UTC.

        Returns:
            A ``pandas.DataFrame`` where pandas is installed, else a list of dicts.
        """
        from searchae.report import trial_rows

        rows = trial_rows(self._stored())
        try:
            import pandas
        except ModuleNotFoundError:
            return rows
        return pandas.DataFrame(rows)

    def figure(self, name: str = "history") -> Any:
        """Returns a figure of the report, which a notebook shows.

        Args:
            name: Such as ``history``, ``curves``, ``importances`` or ``parallel``; an error lists
                those of this study.

        Returns:
            A ``plotly.graph_objects.Figure``.

        Raises:
            UserError: There is no such figure, or nothing to draw yet.
        """
        from searchae.report import figure_by_name

        return figure_by_name(self._findings(), name)

    def report(self, path: str | Path) -> Path:
        """Writes the report, one HTML file that opens offline.

        Args:
            path: The file.

        Returns:
            The file.

        Raises:
            UserError: It cannot be written, or its name promises another format.
        """
        from searchae.report import write_report

        path = _html_file(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_report(path, self._findings())
        except OSError as e:
            raise UserError(f"{path}: cannot be written: {e.strerror or e}") from e
        return path

    @overload
    def compare(
        self,
        *,
        by: Sequence[str] = (),
        until: float = 0.3,
        l1_curve: bool = True,
        max_trainings: int | None = None,
        out: str | Path | None = None,
        max_hours: float | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        workers: int | None = None,
        workers_per_device: int = 1,
        threads: int | None = None,
        precision: str | None = None,
        quiet: bool | None = None,
    ) -> ComparisonResult: ...

    @overload
    def compare(
        self,
        *,
        top: int,
        seeds: int = COMPARED_SEEDS,
        max_hours: float | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        workers: int | None = None,
        workers_per_device: int = 1,
        threads: int | None = None,
        precision: str | None = None,
        quiet: bool | None = None,
    ) -> Ranking: ...

    def compare(
        self,
        *,
        by: Sequence[str] = (),
        until: float = 0.3,
        l1_curve: bool = True,
        max_trainings: int | None = None,
        out: str | Path | None = None,
        top: int | None = None,
        seeds: int | None = None,
        max_hours: float | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        workers: int | None = None,
        workers_per_device: int = 1,
        threads: int | None = None,
        precision: str | None = None,
        quiet: bool | None = None,
    ) -> ComparisonResult | Ranking:
        """Finds out which choices win, by an experiment, as ``searchae compare`` does.

        Ctrl-C, or a notebook's "interrupt", keeps what was trained; the same call goes on.

        Args:
            by: Searched parameters with choices; regularizer, activation and optimizer, as far as
                they are searched, if empty.
            until: Add bases and seeds until each difference is known within so many dB.
            l1_curve: With the regularizer, also measure PSNR and sparsity by ``l1_weight``.
            max_trainings: Start no more than this many trainings.
            out: The HTML page with the results; in the study's artifact folder if unset.
            top: Rank the study's best ``top`` trials over ``seeds`` instead.
            seeds: With ``top``: trainings of each trial; 3 if unset.
            max_hours: Stop all workers after this many hours.
            epochs: Epochs of each training; the search's if unset.
            patience: Stop after this many epochs without improvement; the search's if unset.
            workers: See ``tune``.
            workers_per_device: See ``tune``.
            threads: See ``tune``.
            precision: See ``tune``; the trial's in the search if unset.
            quiet: Show no progress; as the search was made if unset.

        Returns:
            The comparison; with ``top`` the ranking.

        Raises:
            UserError: There is nothing to compare.
            TimeUpError: ``max_hours`` were over before there was a result; the same call goes on.
            KeyboardInterrupt: It was interrupted.
        """
        from searchae.compare import (
            Comparison,
            ComparisonOptions,
            ComparisonRun,
            Reranking,
            TopOptions,
        )
        from searchae.tuning import session

        if top is not None and (by or out or max_trainings):
            raise UserError("top: ranks trials; by, out and max_trainings compare choices")
        if top is None and seeds is not None:
            raise UserError("seeds: only with top; a comparison of choices adds seeds as needed")
        check_counts(top=top, max_trainings=max_trainings, epochs=epochs)
        check_counts(2, seeds=seeds)
        check_counts(0, patience=patience)
        stored = self._stored(writes=True)
        self._allow_net(stored)
        request = FleetRequest(
            **self._place.fleet(
                max_hours=max_hours,
                workers=workers,
                workers_per_device=workers_per_device,
                threads=threads,
                precision=None,
            )
        )
        precision = precision or os.environ.get("SEARCHAE_PRECISION") or None
        is_quiet = self._place.quiet if quiet is None else quiet
        launcher = LocalLauncher()
        with session(launcher, quiet=is_quiet) as (watcher, stop):
            if top is not None:
                options = TopOptions(top, seeds or COMPARED_SEEDS, epochs, patience, precision)
                return Reranking(stored, options).run(request, launcher, watcher, stop)[0]
            comparison = Comparison(
                stored,
                ComparisonOptions(
                    by=tuple(by),
                    has_l1_curve=l1_curve,
                    until_db=until,
                    max_trainings=max_trainings,
                    epochs=epochs,
                    patience=patience,
                    precision=precision,
                ),
            )
            run = ComparisonRun(comparison, request, launcher, watcher, stop)
            return run.run(_html_file(out) if out else None)[0]

    def train(
        self,
        out: str | Path | None = None,
        *,
        trial: int | Literal["best", "winner", "compared"] = "best",
        epochs: int | Literal["search"] | None = None,
        patience: int | None = None,
        train_images: int | Literal["all"] | None = None,
        validation: float | None = None,
        seeds: int = 1,
        workers: int | None = None,
        workers_per_device: int = 1,
        threads: int | None = None,
        precision: str | None = None,
        track: Literal["mlflow", "wandb"] | None = None,
        quiet: bool | None = None,
    ) -> Bundle:
        """Trains a trial anew and measures it on the test split, as ``searchae train`` does.

        ``search.train()`` trains the search's best trial and keeps it in the folder ``NAME-best``.

        Args:
            out: The bundle's folder: a new one, or that of the same training; ``NAME-TRIAL``, the
                study's name and ``trial``, if unset.
            trial: Which trial: the search's ``best``, the ``winner`` of ``compare(top=...)``, the
                best setting ``compared`` by ``compare()``, or a number.
            epochs: Most epochs; ``search`` for as in the search; 100, or the study's if more, if
                unset.
            patience: Stop after this many epochs without improvement; the study's, else 10.
            train_images: Images to use, with those for validation; the study's if unset.
            validation: Share of them that is held out; the study's if unset.
            seeds: Trainings, each with the next seed.
            workers: See ``tune``.
            workers_per_device: See ``tune``.
            threads: See ``tune``; as many as the trial had if unset.
            precision: See ``tune``; the trial's in the search if unset.
            track: Add the bundle to MLflow or W&B as a model; see ``tune``.
            quiet: Show no progress; as the search was made if unset.

        Returns:
            The net, on the CPU; its ``folder`` has pictures and curves, its ``metrics`` the test.

        Raises:
            UserError: There is no such trial, or ``out`` has other contents.
            KeyboardInterrupt: It was interrupted; the same call goes on.
        """
        from searchae.bundle import load_bundle
        from searchae.retrain import plan_retraining, train_bundle
        from searchae.training import pick_device
        from searchae.tuning import make_tracker, session, track_bundle

        check_counts(seeds=seeds)
        tracker = make_tracker(track) if track else None
        check_counts(0, patience=patience)
        stored = self._stored(writes=True)
        self._allow_net(stored)
        plan = plan_retraining(
            stored,
            trial=str(trial),
            epochs="" if epochs is None else str(epochs),
            patience=patience,
            train_images="" if train_images is None else str(train_images),
            validation=validation,
            seeds=seeds,
            device=pick_device(self._place.device),
            threads=threads or default_threads(),
            precision=precision or os.environ.get("SEARCHAE_PRECISION") or None,
        )
        workers = workers or plan.seeds_at_once
        request = FleetRequest(
            **self._place.fleet(
                workers=workers,
                workers_per_device=workers_per_device,
                threads=plan.threads,
            )
        )
        launcher = LocalLauncher()
        folder = Path(f"{folder_name(self.name)}-{trial}" if out is None else out)
        is_quiet = self._place.quiet if quiet is None else quiet
        with session(launcher, quiet=is_quiet, epochs=plan.params.train.epochs) as (watcher, stop):
            for note in plan.notes(hint_at_winner=trial == "best", workers=workers):
                watcher.note(note)
            metrics = train_bundle(
                plan, out=folder, request=request, launcher=launcher, watcher=watcher, stop=stop
            )
            track_bundle(tracker, stored, metrics, watcher.note)
        return load_bundle(folder)

    def __repr__(self) -> str:
        name = ascii(one_line(self.name))
        try:
            summary = self._summary()
        except SearchaeError as e:
            return f"<search {name}: {e.args[0] if e.args else 'not there'}>"
        counts, best = summary.counts, summary.best
        found = f", best {best.psnr_db:.2f} dB (trial {best.number})" if best else ""
        done = f"{counts.finished} of {format_count(counts.budget, 'trial')}"
        return f"<search {name}: {done}{found}, in {one_line(summary.storage)}>"

    def _repr_html_(self) -> str | None:
        from searchae.report import collect_findings, notebook_head

        try:
            found = collect_findings(self._stored(), artifacts=None)
        except SearchaeError:
            return None  # the text says so
        return notebook_head(found)

    def _stored(self, *, writes: bool = False) -> StoredStudy:
        from searchae.storage import Backoff, connect, require_database
        from searchae.study import load_study, require_searched

        require_database(self._place.storage)
        storage = connect(self._place.storage, backoff=Backoff(limit_s=60), writes=writes)
        stored = load_study(storage, self.name)
        require_searched(stored)
        return stored

    def _summary(self) -> Summary:
        from searchae.study import Coordinator, summarize

        stored = self._stored()
        return summarize(stored, Coordinator(stored))

    def _findings(self) -> Findings:
        from searchae.report import collect_findings

        return collect_findings(self._stored(), artifacts=self._place.artifacts)

    def _allow_net(self, stored: StoredStudy) -> None:
        from searchae.study import allow_net

        allow_net(self._place.factory, stored)


def _html_file(path: str | Path) -> Path:
    found = Path(path)
    if found.suffix.lower() not in ("", ".html", ".htm"):
        raise UserError(f"{found}: it is an HTML page: {found.with_suffix('.html')}")
    return found
