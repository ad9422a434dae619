"""A bundle's net: read, checked and used; nothing pickled is ever loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from searchae.bundle.config import CONFIG, WEIGHTS, BundleConfig, read_config, write_config
from searchae.errors import BundleError, ModelError
from searchae.files import atomic_file
from searchae.models import Autoencoder, build_model
from searchae.training import (
    EVALUATION_BATCH,
    load_weights,
    penalised_weights,
    preferred_memory_format,
    to_unit_float,
)

BATCH = EVALUATION_BATCH
"""Images at a time: as the trainer validates, so that figures are the same to the bit."""

FloatArray = npt.NDArray[np.float32]
Given = TypeVar("Given", npt.NDArray[Any], Tensor)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained autoencoder: images to latents and back.

    Numpy arrays give numpy arrays, torch tensors give torch tensors (on the CPU). Large arrays
    are worked through in batches, so that the net itself needs little memory.

    Attributes:
        config: What it is and where it comes from.
        model: The net, in evaluation mode.
    """

    config: BundleConfig
    model: Autoencoder

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.config.image_shape

    @property
    def latent_size(self) -> int:
        """Numbers in the latent of one image."""
        return self.config.latent_size

    @property
    def device(self) -> torch.device:
        """Where the net is."""
        return next(self.model.parameters()).device

    @property
    def layout(self) -> torch.memory_format:
        """The memory format of images that the net was trained with."""
        return preferred_memory_format(self.model)

    def encode(self, images: Given) -> Given:
        """Images to latents.

        Args:
            images: (N, C, H, W), uint8 or float in [0, 1].

        Returns:
            float32 (N, latent_size).

        Raises:
            BundleError: They have another shape, type or range.
        """
        return self._mapped(images, self._encoded, (self.latent_size,), checked=self._checked)

    def decode(self, latents: Given) -> Given:
        """Latents to images.

        Args:
            latents: Float (N, latent_size), finite.

        Returns:
            float32 (N, C, H, W) in [0, 1].

        Raises:
            BundleError: They have another shape or type, or hold NaN or infinity.
        """
        return self._mapped(latents, self._decoded, self.image_shape, checked=self._checked_latents)

    def reconstruct(self, images: Given) -> Given:
        """Images to latents and back; see ``encode`` and ``decode``."""

        def both(part: Tensor) -> Tensor:
            return self.model.decode(self._encoded(part))

        return self._mapped(images, both, self.image_shape, checked=self._checked)

    def check_latents(self, latents: Given, *, where: str) -> None:
        """Makes sure that ``decode`` will take latents, before any work is done.

        Raises:
            BundleError: It will not; the message begins with ``where``.
        """
        try:
            self._checked_latents(_tensor(latents))
        except BundleError as e:
            raise BundleError(f"{where}: {e}") from e

    def _encoded(self, part: Tensor) -> Tensor:
        part = part.to(self.device).contiguous(memory_format=self.layout)
        images = to_unit_float(part) if part.dtype == torch.uint8 else part.to(torch.float32)
        return self.model.encode(images)

    def _decoded(self, part: Tensor) -> Tensor:
        return self.model.decode(part.to(self.device, torch.float32))

    def _mapped(
        self,
        given: Given,
        function: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        *,
        checked: Callable[[Tensor], Tensor],
    ) -> Given:
        tensor = checked(_tensor(given))
        out = torch.empty((len(tensor), *shape), dtype=torch.float32)
        with torch.inference_mode():
            for start in range(0, len(tensor), BATCH):
                part = tensor[start : start + BATCH]
                out[start : start + len(part)] = function(part)
        return out if isinstance(given, Tensor) else out.numpy()

    def _checked(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise BundleError(
                f"images have the shape {tuple(images.shape)}, but this bundle's net takes "
                f"{_shape(self.image_shape)}{self._hint(tuple(images.shape))}"
            )
        if images.dtype == torch.uint8:
            return images
        if not images.is_floating_point():
            raise BundleError(f"images are {images.dtype}: give uint8, or float in [0, 1]")
        low, high = (float(v) for v in torch.aminmax(images)) if images.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise BundleError(
                f"images have values from {low:g} to {high:g}: floats must be in [0, 1]; divide "
                "by 255, or give uint8"
            )
        return images

    def _hint(self, shape: tuple[int, ...]) -> str:
        channels, height, width = self.image_shape
        if shape[1:] == (height, width, channels):
            return ": move the channels first, images.transpose(0, 3, 1, 2) in numpy"
        if shape == self.image_shape:
            return ": for one image, give images[None]"
        if channels == 1 and shape[1:] == (height, width):
            return ": add the channel, images[:, None]"
        return ": convert them first"

    def _checked_latents(self, latents: Tensor) -> Tensor:
        if latents.ndim != 2 or latents.shape[1] != self.latent_size:
            raise BundleError(
                f"latents have the shape {tuple(latents.shape)}, but this bundle's net takes "
                f"(N, {self.latent_size})"
            )
        if not latents.is_floating_point():
            raise BundleError(f"latents are {latents.dtype}: give floats")
        if not bool(latents.isfinite().all()):
            raise BundleError("latents hold NaN or infinity: encode gives neither")
        return latents


def from_weights(
    config: BundleConfig, weights: Mapping[str, Tensor], *, device: torch.device
) -> Bundle:
    """Builds a bundle's net around weights.

    Args:
        config: What the weights belong to.
        weights: By their names in the net; on any device.
        device: Where the net shall be.

    Raises:
        BundleError: They are not this net's, not finite, or outside the clip.
    """
    try:
        with torch.device("meta"):  # takes no memory, whatever the configuration asks for
            model = build_model(config.model, image_shape=config.image_shape)
    except ModelError as e:
        raise BundleError(f"{CONFIG}: the net cannot be built: {e}") from e
    _check_names(model.state_dict(), weights)
    if model.latent_size != config.latent_size:
        raise BundleError(
            f"{CONFIG}: latent_size is {config.latent_size}, the net's is {model.latent_size}"
        )
    load_weights(model, weights, device=device)
    _check_values(model, config)
    return Bundle(config, model)


def write_bundle(folder: Path, config: BundleConfig, weights: Mapping[str, Tensor]) -> None:
    """Writes a bundle's net and its configuration.

    Args:
        folder: It is there.
        config: Its ``weights_sha256`` is filled in here.
        weights: By their names in the net.

    Raises:
        BundleError: The weights are not this net's, not finite, or outside the clip.
    """
    content = tensor_bytes({k: v.detach().cpu().contiguous() for k, v in weights.items()})
    from_weights(config, weights, device=torch.device("cpu"))
    with atomic_file(folder / WEIGHTS) as file:
        file.write(content)
    sha256 = hashlib.sha256(content).hexdigest()
    write_config(folder, config.model_copy(update={"weights_sha256": sha256}))


def load_bundle(folder: str | Path, *, device: str | torch.device = "cpu") -> Bundle:
    """Reads a bundle that ``searchae train`` wrote.

    Args:
        folder: The bundle.
        device: Where to run it, such as ``cpu`` or ``cuda``.

    Raises:
        BundleError: The folder is no bundle, or one that is damaged or was altered.
    """
    folder = Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as e:
        raise BundleError(f"{path}: cannot be read: {e.strerror or e}") from e
    found = hashlib.sha256(content).hexdigest()
    if found != config.weights_sha256:
        raise BundleError(
            f"{path}: is damaged or was replaced: {len(content):,} bytes with SHA-256 "
            f"{found[:12]}, {CONFIG} says {config.weights_sha256[:12]}; copy the bundle again, or "
            "train it again"
        )
    try:
        weights = read_tensors(content)
    except SafetensorError as e:
        raise BundleError(f"{path}: is not a safetensors file: {e}") from e
    try:
        return from_weights(config, weights, device=torch.device(device))
    except BundleError as e:
        raise BundleError(f"{folder}: {e}") from e


def _tensor(given: npt.NDArray[Any] | Tensor) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach()
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "uif" or given.dtype == "f16":
        kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise BundleError(f"expected an array or a tensor of numbers, not {kind}")
    if given.dtype.kind == "u" and given.dtype != np.uint8:
        raise BundleError(f"images are {given.dtype}: give uint8, or float in [0, 1]")
    native = given.astype(given.dtype.newbyteorder("="), copy=False)
    # Torch knows no negative strides, and warns of arrays that it may not write to.
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def _check_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """The same names, shapes and types, or a BundleError that names the first that differs."""
    for name in sorted({*expected, *found}):
        if name not in found:
            raise BundleError(f"{WEIGHTS}: {name} is missing; {CONFIG} describes another net")
        if name not in expected:
            raise BundleError(f"{WEIGHTS}: {name} is not of the net that {CONFIG} describes")
        want, have = expected[name], found[name]
        if (want.shape, want.dtype) != (have.shape, have.dtype):
            raise BundleError(
                f"{WEIGHTS}: {name} is {have.dtype} {_shape(have.shape)}, but the net that "
                f"{CONFIG} describes has {want.dtype} {_shape(want.shape)}"
            )


def _check_values(model: Autoencoder, config: BundleConfig) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BundleError(f"{WEIGHTS}: {name} holds NaN or infinity")
    if config.train.clips:
        largest = max(float(w.detach().abs().max()) for w in penalised_weights(model))
        # The bound as the float32 that the weights are clamped to.
        if largest > float(torch.tensor(config.train.clip, dtype=torch.float32)):
            raise BundleError(
                f"{WEIGHTS}: a weight is {largest:g}, outside the clip of {config.train.clip:g}"
            )


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["N", *map(str, shape)] if len(shape) == 3 else map(str, shape)) + ")"
