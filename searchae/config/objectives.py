"""The objectives of a search: what the sampler optimizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        name: Its name in a study file.
        metric: Its name in Optuna's database.
        title: Its name in tables and on axes.
        maximize: Whether more is better.
        format: Python's format of its values.
    """

    name: str
    metric: str
    title: str
    maximize: bool
    format: str

    def score(self, value: float) -> float:
        """Returns the value, or its negative where less is better."""
        return value if self.maximize else -value

    def text(self, value: float) -> str:
        """Returns a value for a table."""
        return format(value, self.format)


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("psnr", "psnr_db", "PSNR, dB", maximize=True, format=".2f"),
        Objective("sparsity", "sparsity", "near zero", maximize=True, format=".2%"),
        Objective("parameters", "parameters", "parameters", maximize=False, format=",.0f"),
        Objective("latent_dim", "latent_dim", "latents", maximize=False, format=",.0f"),
    )
}
"""By name. ``sparsity`` is the share of latents (or weights, with ``l1_target = "weights"``) below
1e-3 after the last epoch; ``latent_dim`` is the size of the latent, also without a bottleneck."""


def objective_texts(values: Mapping[str, float]) -> list[str]:
    """Returns values with their titles, such as ``near zero 3.10%``; PSNR with its unit only.

    Args:
        values: Value by the objective's name.
    """
    return [
        f"{value:.2f} dB"
        if name == "psnr"
        else f"{OBJECTIVES[name].title} {OBJECTIVES[name].text(value)}"
        for name, value in values.items()
    ]
