"""The study's best trials, ranked again over seeds that had no part in choosing them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from searchae.compare.kept_training import TrainingRecord
from searchae.study import TrialRow


@dataclass(frozen=True)
class Ranked:
    """One trial.

    Attributes:
        number: The trial's.
        searched_rank: By search PSNR, from 1.
        searched_db: Validation PSNR in the search, in dB.
        mean_db: Mean over the seeds of the last epoch's validation PSNR, in dB.
        std_db: Its sample standard deviation, in dB.
        params: Searched parameters.
    """

    number: int
    searched_rank: int
    searched_db: float
    mean_db: float
    std_db: float
    params: dict[str, Any]


@dataclass(frozen=True)
class Ranking:
    """Trials by their mean over the seeds, the best first.

    Attributes:
        rows: The trials.
        seeds: Over which they were trained.
        same_schedule: With the search's own epochs, so that the two PSNRs compare.
        test: ``psnr_db``, ``ssim``, ``mse`` and ``sparsity`` of the winner on the test split,
            means over the seeds: read for the winner alone, and after it was chosen.
    """

    rows: tuple[Ranked, ...]
    seeds: tuple[int, ...]
    same_schedule: bool
    test: dict[str, float]

    @property
    def winner(self) -> Ranked:
        """The best over the seeds."""
        return self.rows[0]

    @property
    def searched_best(self) -> Ranked:
        """The search's best."""
        return min(self.rows, key=lambda r: r.searched_rank)

    @property
    def flattery_db(self) -> float | None:
        """By how much the search's best was better in the search; None if that says nothing."""
        best = self.searched_best
        return best.searched_db - best.mean_db if self.same_schedule else None

    @property
    def sentence(self) -> str:
        """The winner, and what became of the search's best."""
        first, best = self.winner, self.searched_best
        over = f"over {len(self.seeds)} new seeds"
        if first is best:
            text = f"trial {first.number} stays the best: {first.mean_db:.2f} dB {over}"
        else:
            text = (
                f"trial {first.number} is the best {over}: {first.mean_db:.2f} dB; the search's "
                f"best, trial {best.number}, has {best.mean_db:.2f} dB"
            )
        gap = self.flattery_db
        if gap is None:
            return text
        if abs(gap) < 0.005:
            return f"{text}; the search's {best.searched_db:.2f} dB held"
        word = "flattered it by" if gap > 0 else "was too modest by"
        return f"{text}; the search's {best.searched_db:.2f} dB {word} {abs(gap):.2f} dB"

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "sentence": self.sentence,
            "winner": self.winner.number,
            "searched_best": self.searched_best.number,
            "flattery_db": self.flattery_db,
            "seeds": list(self.seeds),
            "rows": [asdict(r) for r in self.rows],
            "test": self.test,
        }


def rank(
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
        trained: Each over each seed.
        seeds: At least two.
        baseline_db: What a training that diverged counts as, as it does in the search.
        same_schedule: See ``Ranking``.
    """
    ranked = []
    for place, row in enumerate(rows, start=1):
        values = [trained[row.number, s].searched_psnr_db(baseline_db) for s in seeds]
        ranked.append(
            Ranked(
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
