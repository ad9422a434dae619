"""The result of a comparison for each parameter, as numbers and as a sentence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from searchae.compare.matched_statistics import ChoiceFigures, MatchedVerdict, PairDifference
from searchae.formatting import format_assignments, format_count, format_list
from searchae.worker import TrainingRecord

OFTEN = 0.2
"""Share of failed trainings from which on a sentence says how many of a choice's failed."""


@dataclass(frozen=True)
class CellResult:
    """One choice in one base.

    Attributes:
        net: Identifies the net, which several parameters may share.
        settings: The tuned values by name.
        at_edge: Names of those at the end of their range, or of what was tried.
        records: The measurements of each seed.
        counts: Which of them the difference rests on: see ``MatchedResults.counts``.
        trained: Which of them did not fail: see ``MatchedResults.above``.
        trial: Number of the first training's trial in the list of trainings.
    """

    net: str
    settings: Mapping[str, Any]
    at_edge: tuple[str, ...]
    records: tuple[TrainingRecord, ...]
    counts: tuple[bool, ...]
    trained: tuple[bool, ...]
    trial: int = -1

    @property
    def psnr_db(self) -> tuple[float, ...]:
        """Test PSNR of each seed in dB, a mean over the images."""
        return tuple(float(r.psnr_db.mean()) for r in self.records)

    @property
    def edges(self) -> dict[str, Any]:
        """The tuned values at the end of their range, or of what was tried, by name."""
        return {name: self.settings[name] for name in self.at_edge}

    @property
    def counted(self) -> list[TrainingRecord]:
        """The measurements that the difference rests on."""
        return [r for r, counts in zip(self.records, self.counts, strict=True) if counts]

    @property
    def text(self) -> str:
        """What the trainings came to: their mean PSNR, and how many failed."""
        psnrs = [db for db, trained in zip(self.psnr_db, self.trained, strict=True) if trained]
        if not psnrs:
            return "failed"
        failed = len(self.records) - len(psnrs)
        some = f", {failed} of {len(self.records)} failed" if failed else ""
        return f"{statistics.fmean(psnrs):.2f} dB{some}"


NOT_TRIED = CellResult(net="", settings={}, at_edge=(), records=(), counts=(), trained=())
"""A cell of a choice that had learned nothing in the bases before."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """The result for one parameter.

    Attributes:
        parameter: The parameter's name.
        statistics: The differences between its choices.
        bases: The bases as texts.
        base_trials: The trials that they come from.
        cells: The result of each choice in each base.
        tries: Number of trainings that tuned a choice's values.
        until_db: The half-width that was asked for, in dB.
        half_width_db: The largest half-width among choices that train and are not far apart, in dB;
            None if there are no two of them.
        lacking: What keeps the intervals wider than asked for; empty if they are not.
    """

    parameter: str
    statistics: MatchedVerdict
    bases: tuple[str, ...]
    base_trials: tuple[int, ...]
    cells: tuple[tuple[CellResult, ...], ...]
    tries: int
    until_db: float
    half_width_db: float | None
    lacking: str

    @property
    def choices(self) -> tuple[ChoiceFigures, ...]:
        """The choices' figures, in the order of ``cells``."""
        return self.statistics.choices

    @property
    def best(self) -> ChoiceFigures:
        """The choice with the best mean difference to the others."""
        return self.choices[self.statistics.best]

    @cached_property
    def order(self) -> list[int]:
        """The choices by index: the best first, then by their mean PSNR."""
        best = self.statistics.best
        return sorted(range(len(self.choices)), key=lambda c: (c != best, -self.mean_db(c)))

    @property
    def against_best(self) -> list[tuple[int, PairDifference]]:
        """The other choices, by index, each with its pair with the best one."""
        pairs = {frozenset((p.first, p.second)): p for p in self.statistics.pairs}
        best = self.statistics.best
        return [(c, pairs[frozenset((best, c))]) for c in self.order if c != best]

    @property
    def shown(self) -> bool:
        """Whether the best choice is significantly better than at least one other."""
        return bool(self._beaten)

    @property
    def _beaten(self) -> list[tuple[int, PairDifference]]:
        """The choices that the best one is significantly better than, as in ``against_best``."""
        return [(c, p) for c, p in self.against_best if p.shown and self._from_best(p)[0] > 0]

    @property
    def trainings(self) -> int:
        """Number of measured trainings."""
        return sum(len(cell.records) for row in self.cells for cell in row)

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        better = self._beaten
        others = [found for found in self.against_best if found not in better]
        fails = [c for c, _ in others if self.best.trains and not self.choices[c].trains]
        same = [found for found in others if found[0] not in fails]
        failing = "".join(f"; {self._failing_text(c, p)}" for c, p in others if c in fails)
        failing = self._left_out_text() + failing
        if not better and not same:
            return f"{self.parameter}: {self.best.name} trains{failing}"
        if not better:
            names = [self.best.name, *(self.choices[c].name for c, _ in same)]
            widest = max(same, key=lambda found: abs(found[1].mean_db))
            over = f"{names[0]} over {self.choices[widest[0]].name}, " if len(same) > 1 else ""
            return (
                f"{self.parameter}: no difference shown between {format_list(names)} "
                f"({over}{self._plain_interval(widest[1])}){failing}"
            )
        won = format_list(
            [
                f"{self.choices[c].name} by {self._interval(p, is_first=not i)}"
                for i, (c, p) in enumerate(better)
            ]
        )
        text = f"{self.parameter}: {self.best.name} beats {won}"
        if same:
            alike = [f"{self.choices[c].name} ({self._plain_interval(p)})" for c, p in same]
            text += f"; not distinguishable from {format_list(alike)} with this data"
        return text + failing

    def _left_out_text(self) -> str:
        """Returns which choices that train have often failed; empty if none has."""
        found = [
            f"{c.failed} of {format_count(c.trainings, 'training')} of {c.name}"
            for c in (self.choices[i] for i in self.order)
            if c.trains and c.failed and c.failed >= OFTEN * c.trainings
        ]
        if not found:
            return ""
        return f"; {format_list(found)} failed, which the differences leave out"

    def _failing_text(self, choice: int, p: PairDifference) -> str:
        """Returns that a choice mostly fails, where it is not known by how much it is worse."""
        found = self.choices[choice]
        return (
            f"{found.name} mostly fails to train ({found.failed} of {found.trainings} trainings; "
            f"the difference is uncertain: {self._plain_interval(p)})"
        )

    def _interval(self, p: PairDifference, *, is_first: bool = False) -> str:
        """Returns a difference of the best choice to another one, with its interval."""
        mean_db, low_db, high_db = self._from_best(p)
        what = "95% interval " if is_first else ""
        small = f", smaller than --until {self.until_db:g}" if mean_db < self.until_db else ""
        return f"{mean_db:.2f} dB{small} ({what}{span_text(low_db, high_db)})"

    def _plain_interval(self, p: PairDifference) -> str:
        mean_db, low_db, high_db = self._from_best(p)
        return f"{mean_db:.2f} dB, {span_text(low_db, high_db)}"

    def _from_best(self, p: PairDifference) -> tuple[float, float, float]:
        """Returns mean and interval of the best choice's PSNR minus the other's, in dB."""
        if p.first == self.statistics.best:
            return p.mean_db, p.low_db, p.high_db
        return -p.mean_db, -p.high_db, -p.low_db

    @property
    def rests_on(self) -> str:
        """What the sentence rests on, as a text."""
        counts = (
            format_count(len(self.bases), "base"),
            format_count(self.statistics.seeds, "seed"),
            format_count(self.trainings, "training"),
            f"{self.tries} tuning tries",
        )
        return ", ".join(counts)

    @property
    def opposites(self) -> list[str]:
        """The pairs of choices that train whose effects differ from base to base."""
        trains = [c.trains for c in self.choices]
        pairs = [p for p in self.statistics.pairs if trains[p.first] and trains[p.second]]
        return [
            self._opposite_text(p) if p.opposite else self._varying_text(p)
            for p in pairs
            if p.opposite or p.varies
        ]

    @property
    def untrained(self) -> list[str]:
        """The choices that do not train, with the number of failed trainings."""
        return [
            f"{c.name} ({c.failed} of {c.trainings} trainings failed, in "
            f"{format_count(sum(bool(cell.records) for cell in row), 'base')})"
            for c, row in zip(self.choices, self.cells, strict=True)
            if not c.trains
        ]

    @property
    def failing(self) -> list[str]:
        """The choices that train with exceptions, with the number of failed trainings."""
        return [
            f"{c.failed} of {c.trainings} with {c.name}"
            for c in self.choices
            if c.trains and c.failed
        ]

    @property
    def edges(self) -> dict[str, str]:
        """The nets with tuned values at an end, as texts by net."""
        return {
            cell.net: f"{choice.name} {base} ({format_assignments(cell.edges)})"
            for choice, row in zip(self.choices, self.cells, strict=True)
            for base, cell in zip(self.bases, row, strict=True)
            if cell.at_edge and choice.trains
        }

    def _opposite_text(self, p: PairDifference) -> str:
        first, second = self.choices[p.first].name, self.choices[p.second].name
        effects = [
            f"{b.mean_db:+.2f} dB ({b.low_db:.2f} to {b.high_db:.2f}) with {self.bases[b.base]}"
            for b in p.by_base
            if b.low_db > 0 or b.high_db < 0
        ]
        return f"{first} against {second} depends on the rest: {format_list(effects)}"

    def _varying_text(self, p: PairDifference) -> str:
        first, second = self.choices[p.first].name, self.choices[p.second].name
        least = min(p.by_base, key=lambda b: b.mean_db)
        most = max(p.by_base, key=lambda b: b.mean_db)
        return (
            f"{first} against {second} depends on the rest: from {least.mean_db:+.2f} dB with "
            f"{self.bases[least.base]} to {most.mean_db:+.2f} dB with {self.bases[most.base]}"
        )

    def document(self) -> dict[str, Any]:
        """Returns the result as a JSON document."""
        names = [c.name for c in self.choices]
        document = {
            "parameter": self.parameter,
            "sentence": self.sentence,
            "difference_shown": self.shown,
            "best": self.best.name,
            "bases": [
                {"trial": number, "name": name}
                for number, name in zip(self.base_trials, self.bases, strict=True)
            ],
            "seeds": self.statistics.seeds,
            "trainings": self.trainings,
            "tries": self.tries,
            "until_db": self.until_db,
            "half_width_db": self.half_width_db,
            "lacking": self.lacking,
            "sides": [self._side(c) for c in self.order],
            "pairs": [
                {**asdict(p), "first": names[p.first], "second": names[p.second]}
                for p in self.statistics.pairs
            ],
        }
        found: dict[str, Any] = without_infinities(document)
        return found

    def _side(self, choice: int) -> dict[str, Any]:
        return {
            **asdict(self.choices[choice]),
            **self.means(choice),
            "psnr_db": self.mean_db(choice),
            "mean_db": self.mean_db(choice),
            "trials": list(self.base_trials),
            "cells": [
                {
                    "base": base,
                    "settings": dict(cell.settings),
                    "psnr_db": list(cell.psnr_db),
                    "counts": list(cell.counts),
                    "at_edge": list(cell.at_edge),
                }
                for base, cell in zip(self.bases, self.cells[choice], strict=True)
            ],
        }

    def mean_db(self, choice: int) -> float:
        """Returns a choice's PSNR for the table, in dB: see ``means``.

        One that does not train has it with the failed trainings as the mean training image.
        """
        figures = self.choices[choice]
        return self.means(choice)["psnr_db"] if figures.trains else figures.mean_db

    def means(self, choice: int) -> dict[str, float]:
        """Returns the metrics of a choice on the test split, means over trainings that count.

        Choices that train have them from the bases that all of these have, if there is one.
        """
        found = [r.summary() for cell in self.common_cells(choice) for r in cell.counted]
        names = ("psnr_db", "ssim", "mse", "sparsity", "hoyer")
        return {name: statistics.fmean(float(r[name]) for r in found) for name in names}

    def common_cells(self, choice: int) -> tuple[CellResult, ...]:
        """Returns a choice's cells in the bases in which all choices that train did.

        Choices that were not tried in all bases are left out of that. All of its cells if there is
        no such base, or if it does not train itself or is one of those.
        """
        cells = self.cells[choice]
        if not self.choices[choice].trains or NOT_TRIED in cells:
            return cells
        rows = [
            row
            for c, row in zip(self.choices, self.cells, strict=True)
            if c.trains and NOT_TRIED not in row
        ]
        common = [all(row[b].counted for row in rows) for b in range(len(cells))]
        if not any(common):
            return cells
        return tuple(cell for cell, shared in zip(cells, common, strict=True) if shared)


def without_infinities(value: Any) -> Any:
    """Returns a JSON value with null in the place of infinity and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {k: without_infinities(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def span_text(low_db: float, high_db: float) -> str:
    """Returns an interval as text; from one base alone there is none."""
    if math.isfinite(low_db) and math.isfinite(high_db):
        return f"{low_db:.2f} to {high_db:.2f}"
    return "no interval: it takes two bases in which both train"
