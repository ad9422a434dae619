"""The net and the training of a built-in study, adapted to other images, for a new study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchae.config.schema import ModelParams, TrainParams
from searchae.config.section import Section
from searchae.errors import UserError

Table = dict[str, Any]
Shape = tuple[int, int, int]
"""(C, H, W): channels, height and width, the last two in pixels."""

SMALLEST_MAP = 4
"""Nets halve their images until a side has no more pixels than this."""
WIDEST = 256
MOST_HALVINGS = 5
FEWEST_LATENTS, MOST_LATENTS = 4, 256
VALUES_PER_LATENT = 48
"""Values of an image for each number of its latent: those of 32x32 pixels in colour become 64, as
in the built-in study ``svhn``; those of MNIST become 16, as in ``mnist``."""
STEPS = 4000
"""Training steps of a whole training, about; in the built-in studies there are 1,000 to 11,000."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 100
MANY_EPOCHS = 30
"""From so many on a training may go on for longer without improvement before it ends."""
_BATCH_SIZES = ((500, 16), (4000, 32), (10_000, 64))
"""Below so many images, batches of so many."""
LARGEST_BATCH = 128


def draft_model(model: Mapping[str, Any], shape: Shape, *, like: str) -> Table:
    """Returns the ``[model]`` of a study, for images of another size.

    Args:
        model: The built-in study's.
        shape: (C, H, W) of the images.
        like: The study's name, for the message.

    Raises:
        UserError: The net cannot be built for images of this size.
    """
    return _ordered(_model(dict(model), shape, like=like), ModelParams)


def _model(found: Table, shape: Shape, *, like: str) -> Table:
    if found.get("kind") == "dense":
        latents = _latents(shape)
        # Widths that fall towards the latent, which is no wider than any of them.
        return {**found, "hidden": [8 * latents, 4 * latents], "latent_dim": latents}
    bottleneck = found.get("bottleneck", "dense")
    if bottleneck == "gap":  # its layers are written out for images of 28 pixels
        first = found.pop("encoder")[0]["channels"]
        del found["decoder"]
        widths = _widths(first, halvings(shape))
        return {**found, "channels": widths, "latent_dim": widths[-1]}
    if "encoder" in found:
        found["decoder"] = [*found["decoder"][:-1], {**found["decoder"][-1], "channels": shape[0]}]
        factor = _product(layer.get("pool", 1) for layer in found["encoder"])
    else:
        count = halvings(shape)
        if found.get("downsample") == "pool":
            count = min(count, _times_even(shape))
        found["channels"] = _widths(found["channels"][0], max(count, 1))
        factor = 2 ** len(found["channels"]) if found.get("downsample") == "pool" else 1
    _, height, width = shape
    if height % factor or width % factor:
        raise UserError(
            f"--like {like}: its net halves images by pooling, which needs sides that are "
            f"multiples of {factor} pixels, and these images have {width}x{height}: take --like "
            "conv, which takes any size, or, for pictures in a folder, another --image-size"
        )
    if bottleneck != "none":
        found["latent_dim"] = _latents(shape)
    elif min(height, width) <= SMALLEST_MAP:
        raise UserError(f"--like {like}: needs images of more than {SMALLEST_MAP} pixels a side")
    return found


def draft_train(train: Mapping[str, Any], *, images: int) -> Table:
    """Returns the ``[train]`` of a study, for another number of images.

    Args:
        train: The built-in study's.
        images: Training images, without those of the validation split.
    """
    found = dict(train)
    batch_size = min(
        next((size for below, size in _BATCH_SIZES if images < below), LARGEST_BATCH),
        1 << max(images.bit_length() - 1, 0),
    )
    steps = -(-images // batch_size)
    epochs = min(max(10 * round(STEPS / steps / 10), FEWEST_EPOCHS), MOST_EPOCHS)
    found |= {"epochs": epochs, "batch_size": batch_size}
    if "patience" in found:
        found["patience"] = 10 if epochs >= MANY_EPOCHS else 5
    if "noise_from_epoch" in found:
        found["noise_from_epoch"] = {"choices": [1, noise_epoch(epochs)]}
    return _ordered(found, TrainParams)


def noise_epoch(epochs: int) -> int:
    """Returns the epoch from which on a training has noise that is without at first: half way."""
    return epochs // 2 + 1


def halvings(shape: Shape) -> int:
    """Returns how often images of a size (C, H, W) are halved: 1 to 5 times."""
    side, count = min(shape[1:]), 0
    while side > SMALLEST_MAP and count < MOST_HALVINGS:
        side, count = -(-side // 2), count + 1
    return max(count, 1)


def _ordered(table: Table, section: type[Section]) -> Table:
    """Returns a table with its keys in the order of their section."""
    return {key: table[key] for key in section.model_fields if key in table}


def _widths(first: int, count: int) -> list[int]:
    return [min(first << i, WIDEST) for i in range(count)]


def _latents(shape: Shape) -> int:
    """Returns the power of two that is nearest to an image's values by ``VALUES_PER_LATENT``."""
    wanted = _product(shape) / VALUES_PER_LATENT
    power = FEWEST_LATENTS
    while power < MOST_LATENTS and 2 * power * power < wanted * wanted:
        power *= 2
    return power


def _times_even(shape: Shape) -> int:
    """Returns how often both sides can be halved without a rest."""
    return min((side & -side).bit_length() - 1 for side in shape[1:])


def _product(numbers: Any) -> int:
    found = 1
    for number in numbers:
        found *= number
    return found
