"""The comparison of choices behind ``searchae compare``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from searchae.compare import page
from searchae.compare.comparison import Comparison
from searchae.compare.experiment import Choice, Experiment, ReadRecord, Wanted, has_ended
from searchae.compare.matched_statistics import analyse
from searchae.compare.penalty_curve import L1_WEIGHT, PenaltyCurve, PenaltyExperiment
from searchae.compare.preparation import open_list
from searchae.compare.result import ComparisonResult
from searchae.compare.verdict import NOT_TRIED, CellResult, Verdict
from searchae.data import gather
from searchae.errors import SearchaeError, StopAskedError, TimeUpError, UserError
from searchae.files import files_here
from searchae.formatting import format_count, format_value
from searchae.launch import FleetRequest, Launcher, sized_fleet
from searchae.report import write_comparison_file
from searchae.retrain import ListRun, RecordFolder, Results
from searchae.study import COMPARED, ListedTraining
from searchae.tuning import StopRequest, Watcher
from searchae.worker import shown_indices

_CACHED_RECORDS = 64
NOTHING_LEARNS = (
    "nothing is compared, since in no setting a choice learned enough in its tries; search on, or "
    "with more epochs"
)


class ComparisonRun:
    """Runs a comparison with the workers of a launcher.

    Args:
        comparison: What is compared.
        request: The workers.
        launcher: Where they run.
        watcher: Shows the progress.
        stop: Setting it ends the run like an interrupt.
    """

    def __init__(
        self,
        comparison: Comparison,
        request: FleetRequest,
        launcher: Launcher,
        watcher: Watcher,
        stop: StopRequest | None = None,
    ) -> None:
        self.comparison, self.request = comparison, request
        self._launcher, self._watcher = launcher, watcher
        self._stop = stop or StopRequest()
        self._told: dict[str, int] = {}

    @cached_property
    def _first_look(self) -> dict[str, Any]:
        return self.comparison.estimate()

    def run(self, out: Path | None) -> tuple[ComparisonResult, dict[str, Any]]:
        """Trains what is missing, compares the choices, and writes the page.

        Args:
            out: The HTML page; None for ``compare.html`` in the comparison's folder.

        Returns:
            The result, and a JSON document of it.

        Raises:
            TimeUpError: The time was up before there was anything to say.
            UserError: There is nothing to compare, or a file cannot be written.
            DataError: The data here differs from the study's.
        """
        stored, request = self.comparison.stored, self.request
        listed, splits = open_list(stored, request, self._launcher, self._watcher.note)
        folder = RecordFolder(request.artifacts, listed)
        read = lru_cache(_CACHED_RECORDS)(folder.read)
        self._experiments = self.comparison.experiments(splits, read)
        self._watcher.note(
            f"its trainings are trials of study {listed.stored.name!r}: those that find learning "
            "rates (tuning), then those that count, with new seeds (measured)"
        )
        for note in self.comparison.not_compared:
            self._watcher.note(note)
        run = ListRun(listed, self._plan, request, self._launcher, self._watcher, self._stop)
        self._tell_expected(run.results())
        try:
            results = run.run()
        except (KeyboardInterrupt, StopAskedError):
            self._tell_so_far(run, read)
            raise
        wanted = self._wanted(results)
        verdicts = [
            self._verdict(e, w, results, read)
            for e, w in zip(self._experiments, wanted, strict=True)
            if w.looks
        ]
        is_unfinished = any(w.design is not None for w in wanted)
        curve = self._curve(wanted, results, read)
        result = ComparisonResult(tuple(verdicts), curve, is_unfinished=is_unfinished)
        for experiment, w in zip(self._experiments, wanted, strict=True):
            if not w.looks and w.design is None:
                self._watcher.note(f"{experiment.parameter}: {NOTHING_LEARNS}")
            elif not w.looks and verdicts:
                self._watcher.note(self._not_yet_text(experiment, w, results))
        if not verdicts:
            if is_unfinished:
                raise TimeUpError(self._nothing_yet(wanted, results))
            raise UserError(f"study {stored.name!r}: {NOTHING_LEARNS}")
        trained = [t for t in self._trainings(wanted, results) if has_ended(results, t)]
        here = files_here(request.artifacts) / stored.folder / "compare"
        is_shared, out = out is None, out or here / "compare.html"
        document = self._document(result, len(splits.test), out, trained)
        try:
            page.write_comparison(
                out,
                result,
                _shown(splits.test),
                study=stored.name,
                about=self._about(trained, read),
                is_shared=is_shared,
            )
            write_comparison_file(request.artifacts, stored, document)
            if best := result.best:
                kept = {"number": best.cell.trial, "mean_db": best.mean_db, "seeds": best.seeds}
                stored.study.set_user_attr(COMPARED, kept)
        except OSError as e:
            raise UserError(f"--out {out}: cannot be written: {e.strerror or e}") from e
        return replace(result, html=out), document

    def _tell_expected(self, results: Results) -> None:
        """Says about how long the first comparisons take, unless nothing is left to train."""
        wanted = self._trainings(self._wanted(results), results)
        if all(has_ended(results, t) for t in wanted):
            return
        workers = 1
        if self._launcher.is_local:
            workers = sized_fleet(self.request, self._launcher).workers
        done = sum(result.is_finished for result in results.values())
        self._watcher.note(self.comparison.expected_text(done=done, workers=workers))

    def _tell_so_far(self, run: ListRun, read: ReadRecord) -> None:
        """Says what is known of each parameter when the run is interrupted."""
        try:
            results = run.results()
            wanted = self._wanted(results)
            lines = [
                self._so_far_text(e, w, results, read)
                for e, w in zip(self._experiments, wanted, strict=True)
            ]
            done = self._done_text(wanted, results)
        except SearchaeError as e:
            self._watcher.note(f"what is known so far cannot be read: {e}")
            return
        self._watcher.note(f"unfinished after {done}; known so far:")
        for line in lines:
            self._watcher.note(f"  {line}")

    def _so_far_text(
        self, experiment: Experiment, wanted: Wanted, results: Results, read: ReadRecord
    ) -> str:
        if not wanted.looks and wanted.design is None:
            return f"{experiment.parameter}: {NOTHING_LEARNS}"
        if not wanted.looks:
            return self._not_yet_text(experiment, wanted, results)
        verdict = self._verdict(experiment, wanted, results, read)
        state = "finished" if wanted.design is None else "unfinished"
        return f"{verdict.sentence}  [{verdict.rests_on}; {state}]"

    def _not_yet_text(self, experiment: Experiment, wanted: Wanted, results: Results) -> str:
        """Returns how far the first look at a parameter is, of as many as a dry run says."""
        done = sum(has_ended(results, t) for t in wanted.trainings)
        sides = self._first_look["sides"]
        (side,) = (s for s in sides if s["parameter"] == experiment.parameter)
        total = max(len(wanted.trainings), side["tries"] + side["trainings"])
        return (
            f"{experiment.parameter}: nothing known yet: {done} of about "
            f"{format_count(total, 'training')} done, some of which serve other parameters too"
        )

    def _nothing_yet(self, wanted: Sequence[Wanted], results: Results) -> str:
        return (
            f"study {self.comparison.stored.name!r}: the time was up (--max-hours) before the "
            f"first comparison was complete: {self._done_text(wanted, results)} are done and "
            "kept; the same command again continues"
        )

    def _done_text(self, wanted: Sequence[Wanted], results: Results) -> str:
        """Returns how many trainings of all parameters have ended, and of about how many."""
        listed = self._trainings(wanted, results)
        done = sum(has_ended(results, t) for t in listed)
        total = format_count(max(len(listed), self._first_look["trainings"]), "training")
        return f"{done} of about {total}"

    def _plan(self, results: Results) -> Sequence[ListedTraining]:
        """Returns the trainings that all experiments want."""
        wanted = self._wanted(results)
        for experiment, w in zip(self._experiments, wanted, strict=True):
            self._tell(experiment, w)
        return self._trainings(wanted, results)

    def _trainings(self, wanted: Sequence[Wanted], results: Results) -> list[ListedTraining]:
        """Returns all trainings that are wanted; those that are shared once."""
        trainings = {t.key: t for w in wanted for t in w.trainings}
        for penalty, w in self._penalties(wanted):
            trainings.update({t.key: t for t in penalty.wanted(w.looks[-1], results)})
        return list(trainings.values())

    def _penalties(self, wanted: Sequence[Wanted]) -> list[tuple[PenaltyExperiment, Wanted]]:
        """Returns what measures the L1 penalty, once the regularizer's experiment is over."""
        space = {p.key: p for p in self.comparison.stored.spec.space}
        weight = space.get(L1_WEIGHT)
        return [
            (PenaltyExperiment(experiment, weight), w)
            for experiment, w in zip(self._experiments, wanted, strict=True)
            if self.comparison.options.has_l1_curve
            and weight is not None
            and PenaltyExperiment.applies(experiment, weight)
            and w.design is None
            and w.looks
        ]

    def _curve(
        self, wanted: Sequence[Wanted], results: Results, read: ReadRecord
    ) -> PenaltyCurve | None:
        found = [p.curve(w.looks[-1], results, read) for p, w in self._penalties(wanted)]
        return found[0] if found else None

    def _wanted(self, results: Results) -> list[Wanted]:
        limit = self.comparison.options.max_trainings
        found: list[Wanted] = []
        given_up = set[Choice]().union(*(e.given_up(results) for e in self._experiments))
        for experiment in self._experiments:
            experiment.skip(given_up)
            others = {t.key for w in found for t in w.trainings}
            found.append(
                experiment.wanted(
                    results, others=others, limit=math.inf if limit is None else limit
                )
            )
        return found

    def _tell(self, experiment: Experiment, wanted: Wanted) -> None:
        """Says once what each look came to, and how the experiment goes on."""
        if wanted.step is None or self._told.get(experiment.parameter) == len(wanted.looks):
            return
        self._told[experiment.parameter] = len(wanted.looks)
        look, step = wanted.looks[-1], wanted.step
        text = (
            f"{experiment.parameter}: {_known(step.half_width_db)} after "
            f"{_size_text(look.bases, look.seeds)}"
        )
        if wanted.design is not None:
            text += f"; going on to {_size_text(wanted.design.bases, wanted.design.seeds)}"
        self._watcher.note(text)

    def _verdict(
        self,
        experiment: Experiment,
        wanted: Wanted,
        results: Results,
        read: ReadRecord,
    ) -> Verdict:
        look, step = wanted.looks[-1], wanted.step
        assert step is not None
        bases = experiment.used_bases(look.bases, results)
        matched = experiment.matched(look, results)
        tried = experiment.cells_of(look, results)
        cells: list[tuple[CellResult, ...]] = []
        for c in range(len(experiment.choices)):
            row = []
            for place, b in enumerate(bases):
                cell = tried.get((c, b))
                if cell is None:
                    row.append(NOT_TRIED)
                    continue
                tuned = cell.tuned(results)
                assert tuned.best is not None  # the look is complete
                measured = experiment.measured(cell, look, results)
                records = tuple(read(t.key) for t in measured)
                row.append(
                    CellResult(
                        net=cell.group,
                        settings=cell.settings(tuned.best),
                        at_edge=tuned.at_edge,
                        records=records,
                        counts=tuple(map(bool, matched.counts[c, place, : len(records)])),
                        trained=tuple(map(bool, matched.above[c, place, : len(records)])),
                        trial=results[measured[0].key].number,
                    )
                )
            cells.append(tuple(row))
        return Verdict(
            parameter=experiment.parameter,
            statistics=analyse(matched),
            bases=tuple(experiment.bases[b] for b in bases),
            base_trials=tuple(experiment.factor.bases[b].number for b in bases),
            cells=tuple(cells),
            tries=sum(len(cell.tuned(results).wanted) for cell in tried.values()),
            until_db=self.comparison.options.until_db,
            half_width_db=step.half_width_db,
            lacking=self._lacking(experiment, wanted),
        )

    def _lacking(self, experiment: Experiment, wanted: Wanted) -> str:
        """Returns what keeps the intervals wide; empty if they are as narrow as asked for."""
        step, until_db = wanted.step, self.comparison.options.until_db
        if step is None:
            return ""
        half_db = step.half_width_db
        if wanted.design is None and (half_db is None or half_db <= until_db):
            return ""
        text = f"{_known(half_db)} among the choices that train, not within {until_db:g} dB"
        if wanted.design is not None:
            return f"{text}: the time was up; the same command again continues"
        if wanted.is_short:
            return (
                f"{text}: --max-trainings ended it; about {step.forecast.bases} bases and "
                f"{step.forecast.seeds} seeds would do"
            )
        return (
            f"{text}: it would take more bases than there are, or more than "
            f"{experiment.limits.seeds} seeds; give a larger --until"
        )

    def _about(self, trained: Sequence[ListedTraining], read: ReadRecord) -> str:
        epochs = self.comparison.options.epochs or self.comparison.stored.spec.epochs
        measured = [t for t in trained if t.is_tested]
        hours = sum(r.seconds for t in measured for r in read(t.key).history) / 3600
        return (
            f"{len(trained)} trainings in all: {len(trained) - len(measured)} to find learning "
            f"rates, and {len(measured)} that were measured, of at most {epochs} epochs, "
            f"which took {hours:.1f} hours of one worker. Parameters share them. The same in all: "
            f"{self._fixed_text()}."
        )

    def _fixed_text(self) -> str:
        fixed = self.comparison.stored.spec.fixed
        patience = self.comparison.options.patience
        values = {k: v for section in ("model", "train") for k, v in fixed[section].items()}
        given = {} if patience is None else {"patience": patience}
        return ", ".join(f"{k} {format_value(v)}" for k, v in {**values, **given}.items())

    def _document(
        self,
        result: ComparisonResult,
        images: int,
        out: Path,
        trained: Sequence[ListedTraining],
    ) -> dict[str, Any]:
        options, schedule = self.comparison.options, self.comparison.schedule
        seeds = max(v.statistics.seeds for v in result.verdicts)
        return {
            "study": self.comparison.stored.name,
            "by": [v.parameter for v in result.verdicts],
            "until_db": options.until_db,
            "seeds": [schedule.first_seed + s for s in range(seeds)],
            "epochs": options.epochs or self.comparison.stored.spec.epochs,
            "patience": options.patience,
            "trainings": sum(t.is_tested for t in trained),
            "tries": sum(not t.is_tested for t in trained),
            "data_hash": self.comparison.stored.data_hash,
            "test_images": images,
            **result.document(),
            "html": str(out),
        }


def _size_text(bases: int, seeds: int) -> str:
    return f"{format_count(bases, 'base')} and {format_count(seeds, 'seed')}"


def _known(half_width_db: float | None) -> str:
    """Returns a half-width as text; rounded up, so that no more is claimed than is known."""
    if half_width_db is None:
        return "no two choices that train are so close that more would help"
    if math.isinf(half_width_db):
        return "not known yet"
    return f"known within {math.ceil(100 * half_width_db - 1e-9) / 100:.2f} dB"


def _shown(test: Tensor) -> Any:
    return gather(test, torch.tensor(shown_indices(len(test)))).numpy()
