"""The models that a study can train, built without memory to check and count them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from searchae.config import (
    StudySpec,
    TrainParams,
    TrialParams,
    batch_size_variants,
    initial_params,
    model_variants,
)
from searchae.errors import SpecError
from searchae.models import (
    Autoencoder,
    build_on_meta,
    check_own_net,
    model_size,
    parameter_count,
)
from searchae.search import MOST_CHOICES, SizeLimit

MOST_NETWORKS = 64
"""Models that are built to be checked."""


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


def build_networks(
    spec: StudySpec, image_shape: tuple[int, int, int], note: Callable[[str], None] = lambda _: None
) -> list[Network]:
    """Builds every model that the choices of a study allow, with ranges at both ends.

    Args:
        spec: The study.
        image_shape: (C, H, W) of its images.
        note: Called with a line for the user if ``search.max_parameters`` refuses some of them.

    Returns:
        The models that may be trained, the first 64.

    Raises:
        ModelError: A model does not fit the images.
        SpecError: ``search.max_parameters`` refuses all models, or those of ``search.first``.
    """
    if spec.fixed["model"].get("kind") == "python":
        _check_own_nets(spec, image_shape)
    limit = spec.search.max_parameters
    if limit is None:
        return [_network(params, image_shape) for params in model_variants(spec)]
    variants = model_variants(spec, limit=MOST_CHOICES)
    sizes = [model_size(params.model, image_shape).parameters for params in variants]
    if min(sizes) > limit:
        raise SpecError(
            f"search.max_parameters: {limit:,} refuses every net of this study; the smallest has "
            f"{min(sizes):,} parameters"
        )
    _check_first(spec, image_shape)
    if refused := sum(size > limit for size in sizes):
        note(
            f"search.max_parameters: {limit:,} refuses {refused} of {len(sizes)} nets (at the ends "
            f"of ranges, of all choices); the largest has {max(sizes):,} parameters"
        )
    small = [params for params, size in zip(variants, sizes, strict=True) if size <= limit]
    return [_network(params, image_shape) for params in small[:MOST_NETWORKS]]


def _check_own_nets(spec: StudySpec, image_shape: tuple[int, int, int]) -> None:
    """Builds the nets of one's own that a study can train, and tries them."""
    trained = [
        TrainParams(regularizer=regularizer, l1_target=target)
        for regularizer, target in product(
            spec.choices_of("train.regularizer"), spec.choices_of("train.l1_target")
        )
    ]
    refused = [train.needs_latent for train in trained if train.needs_latent]
    for params in model_variants(spec, limit=MOST_NETWORKS):
        model = check_own_net(
            params.model,
            image_shape=image_shape,
            is_contractive=any(train.contractive for train in trained),
        )
        if refused and not model.has_latent:
            raise SpecError(refused[0])


def _network(params: TrialParams, image_shape: tuple[int, int, int]) -> Network:
    model = build_on_meta(params.model, image_shape)
    return Network(params, model, parameter_count(model))


def _check_first(spec: StudySpec, image_shape: tuple[int, int, int]) -> None:
    """Checks that the nets of the trials that a search begins with are not refused."""
    limit = SizeLimit(spec, image_shape)
    for index, _ in enumerate(spec.search.first):
        if not limit.is_possible(initial_params(spec, index)):
            raise SpecError(
                f"search.first[{index}]: every such net has more parameters than "
                f"search.max_parameters = {spec.search.max_parameters:,}"
            )


def largest_trial(spec: StudySpec, networks: list[Network]) -> TrialParams:
    """Returns a trial of the largest model with the largest batch size of a study.

    A contractive penalty takes more memory than any other regularizer.
    """
    params = max(networks, key=lambda n: n.parameters).params
    update: dict[str, object] = {"batch_size": _largest_batch_size(spec, networks)}
    contractive = [r for r in spec.choices_of("train.regularizer") if "contractive" in r]
    if contractive:
        update["regularizer"] = contractive[0]
    return replace(params, train=params.train.model_copy(update=update))


def check_batch_size(spec: StudySpec, networks: list[Network], *, images: int) -> int:
    """Checks that a batch is no larger than the training split.

    Args:
        spec: The study.
        networks: Its models.
        images: Number of training images.

    Returns:
        The largest batch size of the study.

    Raises:
        SpecError: A batch size exceeds ``images``.
    """
    largest = _largest_batch_size(spec, networks)
    if largest > images:
        raise SpecError(f"train.batch_size: {largest} exceeds the {images} training images")
    return largest


def check_active_latents(spec: StudySpec, networks: list[Network]) -> None:
    """Checks that every net has at least as many latents as are to be kept of them.

    Args:
        spec: The study.
        networks: Its models.

    Raises:
        SpecError: One has fewer.
    """
    if not any("k-sparse" in name for name in spec.choices_of("train.regularizer")):
        return
    most = _largest(spec, "active_latents")
    least = min(n.model.latent_size for n in networks)
    if most > least:
        raise SpecError(
            f"train.active_latents: {most} of the latent's values cannot be kept, since a net "
            f"of this study has only {least}; lower it, or give its nets larger latents"
        )


def check_objectives(spec: StudySpec, networks: list[Network]) -> None:
    """Checks that the sizes that a study minimizes differ among its models.

    Args:
        spec: The study.
        networks: Its models.

    Raises:
        SpecError: All models have the same size.
    """
    if len(networks) == MOST_NETWORKS:  # there may be others
        return
    for name, sizes in (
        ("parameters", {n.parameters for n in networks}),
        ("latent_dim", {n.model.latent_size for n in networks}),
    ):
        if name in spec.search.objectives and len(sizes) == 1:
            raise SpecError(
                f"search.objectives: {name} is {sizes.pop():,} in every net of this study; search "
                f"a key of [model] that changes it, or leave {name} out"
            )


def check_shift(spec: StudySpec, image_shape: tuple[int, int, int]) -> None:
    """Checks that no image can be moved out of sight.

    Args:
        spec: The study.
        image_shape: (C, H, W) of its images.

    Raises:
        SpecError: One could be.
    """
    most, side = _largest(spec, "shift_pixels"), min(image_shape[1:])
    if most >= side:
        raise SpecError(
            f"train.shift_pixels: {most} would move images of {side} pixels out of sight; give "
            "fewer"
        )


def _largest(spec: StudySpec, name: str) -> int:
    """Returns the largest value that a whole number of ``[train]`` may have."""
    searched = next((p for p in spec.space if p.key == f"train.{name}"), None)
    if searched is None:
        return int(spec.fixed["train"][name])
    return int(max(searched.choices or (searched.high,)))


def _largest_batch_size(spec: StudySpec, networks: list[Network]) -> int:
    return max(batch_size_variants(spec, [n.params for n in networks]))
