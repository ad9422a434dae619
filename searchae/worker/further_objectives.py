"""The values of a trial's objectives besides its PSNR."""

from __future__ import annotations

import math

from searchae.config import StudySpec, model_variants
from searchae.models import ModelSize, model_size, parameter_count
from searchae.training import Trainer

MOST_VARIANTS = 4096
"""Nets that are looked at to find the largest one."""


class FurtherObjectives:
    """Measures the objectives of a study's trials after the first one, which is the PSNR.

    Args:
        spec: The study.
        image_shape: (C, H, W) of its images.
    """

    def __init__(self, spec: StudySpec, image_shape: tuple[int, int, int]) -> None:
        self._spec, self._image_shape = spec, image_shape
        self._names = spec.search.objectives[1:]

    def of(self, trainer: Trainer | None) -> tuple[float, ...]:
        """Returns the values of a trial that was trained to its end.

        Args:
            trainer: Its trainer; may be None in a study with one objective (in tests).
        """
        if not self._names:
            return ()
        assert trainer is not None
        size = ModelSize(parameter_count(trainer.model), trainer.model.latent_size)
        return self._values(trainer.history[-1].sparsity, size)

    def worst(self) -> tuple[float, ...]:
        """Returns the values of a trial that ended badly: no sparsity, and the largest net.

        With the sizes of its own net, a small net that learned nothing would be on the front.
        """
        if not self._names:
            return ()
        nets = {p.model for p in model_variants(self._spec, limit=MOST_VARIANTS)}
        limit = self._spec.search.max_parameters or math.inf
        sizes = [model_size(net, self._image_shape) for net in nets]
        sizes = [size for size in sizes if size.parameters <= limit]
        return self._values(
            0.0, ModelSize(max(s.parameters for s in sizes), max(s.latent for s in sizes))
        )

    def _values(self, sparsity: float, size: ModelSize) -> tuple[float, ...]:
        measured = {
            "sparsity": sparsity,
            "parameters": float(size.parameters),
            "latent_dim": float(size.latent),
        }
        return tuple(measured[name] for name in self._names)
