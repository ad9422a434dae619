"""What replayed searches tried of each choice: how often, and how near to its best possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.defaults_table import Curve, Table

Tried = Sequence[tuple[int, float]]
"""A search's trials by number: the configuration's index in the table, and its last PSNR in dB."""
LEARNS_DB = 0.5
"""A choice of which nothing comes so far above the mean image is left out: nothing can be found."""


def choices_table(
    searches: Mapping[str, Sequence[tuple[Table, Tried]]], counts: Sequence[int]
) -> Iterator[str]:
    """The lines of a table of sides.

    ``rarest`` is the number of trials of the choice with the fewest: mean over the searches, and
    the lowest. ``tried`` is what the best final PSNR of a choice has over that of the best
    configuration that was tried of it, trained to its end; ``reached`` is what it has over the
    best last PSNR of its trials, which may have been pruned. Both in dB, means over choices and
    searches, with 95% intervals over the searches.

    Args:
        searches: Side -> each search's table and trials.
        counts: Look after so many trials.
    """
    columns = [f"{name} @{n}" for n in counts for name in ("rarest", "tried", "reached")]
    yield f"| side | {' | '.join(columns)} |"
    yield "| --- " * (len(columns) + 1) + "|"
    rng = np.random.default_rng(0)
    for side, of in searches.items():
        cells = []
        for count in counts:
            rows = [_of_search(table, tried[:count]) for table, tried in of]
            rarest = [row[0] for row in rows]
            cells.append(f"{np.mean(rarest):.1f} (at least {min(rarest)})")
            lacks = np.array([row[1:] for row in rows])
            draws = lacks[rng.integers(len(lacks), size=(2000, len(lacks)))].mean(axis=1)
            low, high = np.quantile(draws, (0.025, 0.975), axis=0)
            cells += [
                f"{m:.2f} ({a:.2f} to {b:.2f})"
                for a, m, b in zip(low, lacks.mean(axis=0), high, strict=True)
            ]
        yield f"| {' | '.join([side, *cells])} |"


def _of_search(table: Table, tried: Tried) -> tuple[int, float, float]:
    rarest, could, did = len(tried), [], []
    for p in table.space:
        for choice in p.labels:
            possible = max(_final_db(table, c) for c in table.curves if c.params[p.name] == choice)
            own = [(i, psnr) for i, psnr in tried if table.curves[i].params[p.name] == choice]
            rarest = min(rarest, len(own))
            if possible < table.baseline_db + LEARNS_DB:
                continue
            finals = [_final_db(table, table.curves[i]) for i, _ in own]
            could.append(possible - max(finals, default=table.baseline_db))
            did.append(possible - max((psnr for _, psnr in own), default=table.baseline_db))
    return rarest, float(np.mean(could)), float(np.mean(did))


def _final_db(table: Table, curve: Curve) -> float:
    return table.baseline_db if curve.diverged else curve.psnr_db[-1]
