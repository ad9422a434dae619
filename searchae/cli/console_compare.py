"""Prints a comparison: its trainings, its tables and its verdicts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from searchae.cli.terminal import print_line
from searchae.formatting import format_count, format_duration, format_value, one_line

if TYPE_CHECKING:
    from searchae.compare import ComparisonResult, Ranking


def print_plan(document: dict[str, Any]) -> None:
    """Prints what the first look of a comparison would train."""
    for side in document["sides"]:
        print_line(f"{side['parameter']:12s} {', '.join(side['choices'])}")
        for base in side["bases"]:
            print_line(f"{'':12s} in {base}")
        tries = f"{side['tries']} to tune, " if side["tries"] else ""
        print_line(
            f"{'':12s} trainings: {tries}{side['trainings']} to measure, over {side['seeds']} seeds"
        )
    for note in document["not_compared"]:
        print_line(note)
    seconds, trainings = document["seconds"], document["trainings"]
    if seconds is not None:
        seconds *= max(0.0, 1 - document["done"] / trainings)
    cost = "unknown" if seconds is None else f"about {format_duration(seconds)} of one worker"
    done = f", {document['done']} of them done" if document["done"] else ""
    print_line(
        f"{'first look':12s} about {document['trainings']} trainings{done}, {cost}; those that "
        "several parameters share are trained once"
    )
    print_line(
        f"{'then':12s} more, until each difference is known within {document['until_db']:g} dB"
    )
    print_line("Nothing was trained; leave out --dry-run to start.")


def print_top_plan(document: dict[str, Any]) -> None:
    """Prints what a new ranking would train."""
    print_line(f"{'trials':12s} {', '.join(map(str, document['trials']))}")
    print_line(f"{'seeds':12s} {', '.join(map(str, document['seeds']))}")
    print_line(f"{'trainings':12s} {document['trainings']}")
    if document["note"]:
        print_line(f"{'note':12s} {document['note']}")


def print_verdicts(result: ComparisonResult, html: str) -> None:
    """Prints a table and a sentence for each parameter.

    Args:
        result: The comparison.
        html: Path of the plots.
    """
    from searchae.compare import COMPARISON_HEADERS, comparison_cells
    from searchae.training import LEARNED_DB

    for verdict in result.verdicts:
        _print_table(
            (verdict.parameter, *COMPARISON_HEADERS[1:]),
            [comparison_cells(verdict, c) for c in verdict.order],
        )
        print()
    for verdict in result.verdicts:
        print_line(f"{verdict.sentence}  [{verdict.rests_on}]")
    if curve := result.curve:
        of = f"{format_count(len(curve.bases), 'base')}, {format_count(curve.seeds, 'seed')}"
        print_line(f"{curve.sentence}  [{of}]")
        print_line(f"l1_weight: {curve.front}")
    for note in result.notes:
        print_line(f"note: {note}")
    if result.best:
        print_line(result.best.sentence)
    print_line(
        "A base is a setting of all other parameters; near zero: the share of latents below 1e-3; "
        "Hoyer: from 0 (all latents alike) to 1 (a single one). A training fails if it "
        "diverges, dies (gives the same picture for every image) or ends less than "
        f"{LEARNED_DB:g} dB above the mean training image."
    )
    print_line(f"plots: {html}")


def print_ranking(found: Ranking) -> None:
    """Prints the ranking, its verdict, and the winner's metrics on the test split."""
    head = ("rank", "trial", "over seeds, dB", "in the search", "rank there", "parameters")
    rows = [
        (
            str(place),
            str(r.number),
            f"{r.mean_db:.2f} ± {r.std_db:.2f}",
            f"{r.searched_db:.2f}",
            str(r.searched_rank),
            " ".join(f"{k}={format_value(v)}" for k, v in r.params.items()),
        )
        for place, r in enumerate(found.rows, start=1)
    ]
    _print_table(head, rows)
    print()
    print_line(found.sentence)
    test = found.test
    print_line(
        f"test split: {test['psnr_db']:.2f} dB, SSIM {test['ssim']:.4f}, MSE {test['mse']:.6f}, "
        f"{test['sparsity']:.1%} of the latents near zero"
    )


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    for i, name in enumerate(head):
        is_text = i in (0, len(head) - 1)
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(one_line, row))
    # Never wrapped, whatever the width of the output.
    text = io.StringIO()
    width = max(200, 40 * len(head))
    Console(file=text, width=width, color_system=None, markup=False, emoji=False).print(table)
    for line in text.getvalue().splitlines():
        print_line(line.rstrip())
