"""The table of a parameter's choices, on the page, in the terminal and in a notebook."""

from __future__ import annotations

from searchae.compare.verdict import Verdict

COMPARISON_HEADERS = ("", "PSNR, dB", "SSIM", "MSE", "near zero", "Hoyer", "trainings", "failed")
"""Headings of the table of choices, on the page and in the terminal."""


def comparison_cells(verdict: Verdict, choice: int) -> tuple[str, ...]:
    """Returns a choice's row of the table with ``COMPARISON_HEADERS``."""
    figures, means = verdict.choices[choice], verdict.means(choice)
    texts = (
        f"{means['ssim']:.4f}",
        f"{means['mse']:.6f}",
        f"{means['sparsity']:.1%}",
        f"{means['hoyer']:.3f}",
    )
    return (
        figures.name,
        f"{verdict.mean_db(choice):.2f}",
        *(texts if figures.trains else ("",) * len(texts)),
        str(figures.trainings),
        str(figures.failed),
    )
