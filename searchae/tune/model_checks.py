"""The models that a study can train, built without memory to check and count them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from searchae.config import StudySpec, TrialParams, batch_size_variants, model_variants
from searchae.errors import SpecError
from searchae.models import Autoencoder, build_model, parameter_count


@dataclass(frozen=True)
class Network:
    """One model of a study.

    Attributes:
        params: A trial that trains it.
        model: The model on the meta device, without weights.
        parameters: Its number of trainable parameters.
    """

    params: TrialParams
    model: Autoencoder
    parameters: int


def build_networks(spec: StudySpec, image_shape: tuple[int, int, int]) -> list[Network]:
    """Builds every model that the choices of a study allow, with ranges at both ends.

    Args:
        spec: The study.
        image_shape: (C, H, W) of its images.

    Raises:
        ModelError: A model does not fit the images.
    """
    networks = []
    for params in model_variants(spec):
        with torch.device("meta"):
            model = build_model(params.model, image_shape=image_shape)
        networks.append(Network(params, model, parameter_count(model)))
    return networks


def largest_trial(spec: StudySpec, networks: list[Network]) -> TrialParams:
    """Returns a trial of the largest model with the largest batch size of a study."""
    params = max(networks, key=lambda n: n.parameters).params
    update = {"batch_size": _largest_batch_size(spec, networks)}
    return replace(params, train=params.train.model_copy(update=update))


def check_batch_size(spec: StudySpec, networks: list[Network], *, images: int) -> None:
    """Checks that a batch is no larger than the training split.

    Args:
        spec: The study.
        networks: Its models.
        images: Number of training images.

    Raises:
        SpecError: A batch size exceeds ``images``.
    """
    largest = _largest_batch_size(spec, networks)
    if largest > images:
        raise SpecError(f"train.batch_size: {largest} exceeds the {images} training images")


def _largest_batch_size(spec: StudySpec, networks: list[Network]) -> int:
    return max(batch_size_variants(spec, [n.params for n in networks]))
