"""The values of a trial's objectives besides its PSNR."""

from __future__ import annotations

from searchae.config import StudySpec
from searchae.models import ModelSize, parameter_count
from searchae.training import Trainer


def further_values(spec: StudySpec, trainer: Trainer | None) -> tuple[float, ...]:
    """Returns the values of a trained trial's objectives after the first one, which is the PSNR.

    Args:
        spec: The study.
        trainer: The trial's trainer; may be None in a study with one objective (in tests).
    """
    names = spec.search.objectives[1:]
    if not names:
        return ()
    assert trainer is not None
    size = ModelSize(parameter_count(trainer.model), trainer.model.latent_size)
    measured = {
        "sparsity": trainer.history[-1].sparsity,
        "parameters": float(size.parameters),
        "latent_dim": float(size.latent),
    }
    return tuple(measured[name] for name in names)
