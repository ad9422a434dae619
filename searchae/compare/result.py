"""The result of a comparison: of each parameter, what limits it, and the best setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from searchae.compare.choice_table import COMPARISON_HEADERS, comparison_cells
from searchae.compare.penalty_curve import PenaltyCurve
from searchae.compare.verdict import CellResult, Verdict
from searchae.formatting import format_assignments, format_list, one_line
from searchae.report import notebook_table


@dataclass(frozen=True, eq=False)
class BestSetting:
    """The measured setting with the highest mean PSNR.

    Attributes:
        name: Its choices.
        cell: Its result.
        mean_db: Its PSNR on the test split, a mean over seeds, in dB.
        among: How many settings it is the best of.
    """

    name: str
    cell: CellResult
    mean_db: float
    among: int

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.cell.records)

    @property
    def sentence(self) -> str:
        """The setting as a sentence."""
        settings = self.cell.settings
        tuned = f" ({format_assignments(settings)})" if settings else ""
        return (
            f"best setting measured: {self.name}{tuned}, {self.mean_db:.2f} dB over {self.seeds} "
            f"seeds (the best of {self.among} settings, so a little too high)"
        )


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonResult:
    """The result of a comparison.

    Attributes:
        verdicts: Of each parameter.
        curve: PSNR and sparsity by the weight of the L1 penalty, if they were measured.
        html: The page with all of it; None before it is written.
        is_unfinished: Whether the time was up before all was measured; the same call continues.

    Examples:
        >>> result = searchae.open("quickstart").compare(by=["optimizer"])
        >>> print(result)
        optimizer: ...
        >>> result.html.name
        'compare.html'
    """

    verdicts: tuple[Verdict, ...]
    curve: PenaltyCurve | None = None
    html: Path | None = None
    is_unfinished: bool = False

    @property
    def sentences(self) -> list[str]:
        """What is known, what limits it, and the best setting, a sentence each."""
        found = [f"{v.sentence} [{v.rests_on}]" for v in self.verdicts]
        if self.curve:
            found += [self.curve.sentence, f"l1_weight: {self.curve.front}"]
        found += [f"note: {note}" for note in self.notes]
        return found + ([self.best.sentence] if self.best else [])

    def __repr__(self) -> str:
        return "\n".join(map(one_line, self.sentences))

    def _repr_html_(self) -> str:
        tables = [
            (
                (v.parameter, *COMPARISON_HEADERS[1:]),
                [comparison_cells(v, choice) for choice in v.order],
            )
            for v in self.verdicts
        ]
        where = [f"curves and pictures: {self.html}"] if self.html else []
        return notebook_table([*self.sentences, *where], tables)

    @cached_property
    def notes(self) -> list[str]:
        """Limitations of the result, a sentence for each kind of limitation."""
        return notes_on(self.verdicts)

    @cached_property
    def best(self) -> BestSetting | None:
        """The measured setting with the highest mean PSNR, if there is one without failures."""
        return _best(self.verdicts)

    def document(self) -> dict[str, Any]:
        """Returns the result as a JSON document."""
        return {
            "comparisons": [{**v.document(), "notes": notes_on([v])} for v in self.verdicts],
            "notes": self.notes,
            "best_setting": "" if self.best is None else self.best.sentence,
            "l1_curve": self.curve and self.curve.document(),
        }


def notes_on(verdicts: Sequence[Verdict]) -> list[str]:
    """Returns the limitations of several results, a sentence for each kind of limitation."""
    found = [f"{v.parameter}: {text}" for v in verdicts for text in v.opposites]
    untrained = [text for v in verdicts for text in v.untrained]
    if untrained:
        found.append(
            f"these mostly fail to train, and their failed trainings count as the mean training "
            f"image: {format_list(untrained)}"
        )
        found += [text for text in [_stopped_early(verdicts)] if text]
    failing = [text for v in verdicts for text in v.failing]
    if failing:
        found.append(
            f"some trainings diverged, died or learned next to nothing: {format_list(failing)}; "
            "these are left out of the differences"
        )
    # Parameters share nets: each is listed once.
    edges = list({net: text for v in verdicts for net, text in v.edges.items()}.values())
    if edges:
        found.append(
            "the best values lie at the end of their range or of what was tried, so that others "
            f"may do better: {format_list(edges)}"
        )
    lacking: dict[str, list[str]] = {}
    for v in verdicts:
        if v.lacking:
            lacking.setdefault(v.lacking, []).append(v.parameter)
    return found + [f"{', '.join(names)}: {text}" for text, names in lacking.items()]


def _best(verdicts: Sequence[Verdict]) -> BestSetting | None:
    found = {
        cell.net: (statistics.fmean(cell.psnr_db), choice.name, base, cell)
        for v in verdicts
        for choice, row in zip(v.choices, v.cells, strict=True)
        for base, cell in zip(v.bases, row, strict=True)
        if len(cell.records) > 1 and all(cell.trained)
    }
    if not found:
        return None
    mean_db, choice_name, base, cell = max(found.values(), key=lambda f: f[0])
    return BestSetting(f"{choice_name} with {base}", cell, mean_db, len(found))


def _stopped_early(verdicts: Sequence[Verdict]) -> str:
    """Returns how many trainings of choices that do not train a plateau has ended; empty for none.

    A net may stay at the mean image for longer than ``train.patience`` before it learns.
    """
    records = {
        id(r): r
        for v in verdicts
        for c, row in zip(v.choices, v.cells, strict=True)
        for cell in row
        for r in cell.records
        if not c.trains
    }
    lengths = sorted(len(r.history) for r in records.values() if r.ended == "plateau")
    if not lengths:
        return ""
    epochs = f"{lengths[0]}" if lengths[0] == lengths[-1] else f"{lengths[0]} to {lengths[-1]}"
    return (
        f"of the {len(records)} trainings of these, train.patience ended {len(lengths)}, after "
        f"{epochs} epochs: with more (--patience) they may learn"
    )
