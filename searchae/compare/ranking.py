"""Ranks a study's best trials again by new seeds, which did not influence their selection."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from searchae.formatting import format_assignments, one_line
from searchae.report import notebook_table
from searchae.study import TrialRow
from searchae.worker import TrainingRecord


@dataclass(frozen=True)
class RankedTrial:
    """One trial in the ranking.

    Attributes:
        number: The trial's number.
        searched_rank: Rank by PSNR in the search, from 1.
        searched_db: Validation PSNR in the search, in dB.
        mean_db: Mean over the seeds of the last epoch's validation PSNR, in dB.
        std_db: Its sample standard deviation over the seeds, in dB.
        params: The searched parameters.
    """

    number: int
    searched_rank: int
    searched_db: float
    mean_db: float
    std_db: float
    params: dict[str, Any]


@dataclass(frozen=True, repr=False)
class Ranking:
    """Trials ranked by their mean PSNR over the seeds.

    Examples:
        >>> ranking = searchae.open("quickstart").compare(top=2, seeds=2)
        >>> print(ranking)
        trial ... over 2 new seeds...
        >>> ranking.winner.mean_db >= ranking.rows[-1].mean_db
        True

    Attributes:
        rows: The trials, the best first.
        seeds: The seeds of the trainings.
        same_schedule: Whether they had the search's epochs and patience, so that their PSNR can
            be compared with the search's.
        test: ``psnr_db``, ``ssim``, ``mse`` and ``sparsity`` of the winner on the test split,
            means over the seeds. Only the winner is measured there, after it was chosen.
    """

    rows: tuple[RankedTrial, ...]
    seeds: tuple[int, ...]
    same_schedule: bool
    test: dict[str, float]

    def __repr__(self) -> str:
        return one_line(self.sentence)

    def _repr_html_(self) -> str:
        head = ("rank", "trial", "over seeds, dB", "in the search", "rank there", "parameters")
        rows = [
            (
                str(place),
                str(row.number),
                f"{row.mean_db:.2f} ± {row.std_db:.2f}",
                f"{row.searched_db:.2f}",
                str(row.searched_rank),
                format_assignments(row.params),
            )
            for place, row in enumerate(self.rows, start=1)
        ]
        return notebook_table([self.sentence], [(head, rows)])

    @property
    def winner(self) -> RankedTrial:
        """The trial with the best mean over the seeds."""
        return self.rows[0]

    @property
    def searched_best(self) -> RankedTrial:
        """The trial with the best PSNR in the search."""
        return min(self.rows, key=lambda r: r.searched_rank)

    @property
    def optimism_db(self) -> float | None:
        """PSNR of the search's best trial in the search minus its mean here, in dB.

        None if the schedules differ.
        """
        best = self.searched_best
        return best.searched_db - best.mean_db if self.same_schedule else None

    @property
    def sentence(self) -> str:
        """The winner, and the result of the search's best trial, as a sentence."""
        first, best = self.winner, self.searched_best
        over = f"over {len(self.seeds)} new seeds"
        if first is best:
            text = f"trial {first.number} stays the best: {first.mean_db:.2f} dB {over}"
        else:
            text = (
                f"trial {first.number} is the best {over}: {first.mean_db:.2f} dB; the search's "
                f"best, trial {best.number}, has {best.mean_db:.2f} dB"
            )
        gap = self.optimism_db
        if gap is None:
            return text
        if abs(gap) < 0.005:
            return f"{text}; the search's {best.searched_db:.2f} dB held"
        word = "flattered it by" if gap > 0 else "was too modest by"
        return f"{text}; the search's {best.searched_db:.2f} dB {word} {abs(gap):.2f} dB"

    def document(self) -> dict[str, Any]:
        """Returns the ranking as a JSON document."""
        return {
            "sentence": self.sentence,
            "winner": self.winner.number,
            "searched_best": self.searched_best.number,
            "optimism_db": self.optimism_db,
            "seeds": list(self.seeds),
            "rows": [asdict(r) for r in self.rows],
            "test": self.test,
        }


def rank_trials(
    rows: Sequence[TrialRow],
    trained: Mapping[tuple[int, int], TrainingRecord],
    *,
    seeds: tuple[int, ...],
    baseline_db: float,
    same_schedule: bool,
) -> Ranking:
    """Ranks trials by the mean of their validation PSNR.

    Args:
        rows: The trials, the search's best first.
        trained: The trainings, by trial and seed.
        seeds: The seeds, at least two.
        baseline_db: PSNR in dB that a diverged training counts as, as in the search.
        same_schedule: See ``Ranking``.
    """
    ranked = []
    for place, row in enumerate(rows, start=1):
        values = [trained[row.number, s].searched_psnr_db(baseline_db) for s in seeds]
        ranked.append(
            RankedTrial(
                number=row.number,
                searched_rank=place,
                searched_db=row.psnr_db or 0.0,
                mean_db=statistics.fmean(values),
                std_db=statistics.stdev(values),
                params=row.params,
            )
        )
    ranked.sort(key=lambda r: (-r.mean_db, r.searched_rank))
    first = [trained[ranked[0].number, s] for s in seeds]
    test = {
        name: statistics.fmean(float(getattr(r, name).mean()) for r in first)
        for name in ("psnr_db", "ssim", "mse")
    }
    return Ranking(
        rows=tuple(ranked),
        seeds=seeds,
        same_schedule=same_schedule,
        test={**test, "sparsity": statistics.fmean(r.sparsity for r in first)},
    )
