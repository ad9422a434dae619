"""The trained autoencoder in a bundle: reading, checking, writing and using it.

Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from searchae.bundle.config import (
    CONFIG,
    WEIGHTS,
    BundleConfig,
    read_config,
    read_metrics,
    write_config,
)
from searchae.bundle.validation import (
    check_images,
    check_latents,
    check_weight_names,
    check_weight_values,
    to_tensor,
)
from searchae.errors import BundleError, ModelError
from searchae.files import open_input, output_file
from searchae.formatting import one_line
from searchae.models import Autoencoder, build_model, memoryless
from searchae.training import EVALUATION_BATCH, load_weights, preferred_memory_format, to_unit_float

ArrayT = TypeVar("ArrayT", npt.NDArray[Any], Tensor)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained autoencoder that converts images to latents and back.

    Numpy arrays give numpy arrays; torch tensors give torch tensors on the CPU. Large arrays are
    processed in batches, so that the net needs little memory.

    Attributes:
        config: The bundle's configuration.
        model: The net, in evaluation mode.
        folder: The bundle's folder; None if it was built without one.

    Examples:
        >>> model = searchae.load("best")
        >>> images = np.zeros((2, *model.image_shape), np.uint8)
        >>> codes = model.encode(images)
        >>> codes.shape == (2, model.latent_size)
        True
        >>> model.decode(codes).shape == images.shape
        True
    """

    config: BundleConfig
    model: Autoencoder
    folder: Path | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.config.image_shape

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of the folder's ``metrics.json``, such as ``psnr_db`` on the test split.

        Raises:
            BundleError: There is no such file, or it is damaged.
        """
        return read_metrics(self.folder)

    @property
    def latent_size(self) -> int:
        """How many values the latent of one image has."""
        return self.config.latent_size

    @property
    def device(self) -> torch.device:
        """The device of the net's weights."""
        return next(self.model.parameters()).device

    @property
    def layout(self) -> torch.memory_format:
        """The memory format of images that the net was trained with."""
        return preferred_memory_format(self.model)

    def __repr__(self) -> str:
        c, h, w = self.image_shape
        where = "" if self.folder is None else f" in {one_line(str(self.folder))}"
        return f"<autoencoder of {c}x{h}x{w} images, {self.latent_size} latents{where}>"

    def encode(self, images: ArrayT) -> ArrayT:
        """Encodes images as latents.

        Args:
            images: (N, C, H, W), uint8 or float in [0, 1]; uint16 if the net's images keep 16 bits.

        Returns:
            float32 (N, latent_size).

        Raises:
            BundleError: They have another shape, type or range, or the net has no latent.
        """
        self._require_latent()
        tensor = check_images(to_tensor(images), self.config)
        return self._map_batches(images, tensor, self._encode_batch, (self.latent_size,))

    def decode(self, latents: ArrayT) -> ArrayT:
        """Decodes latents to images.

        Args:
            latents: Float (N, latent_size), finite.

        Returns:
            float32 (N, C, H, W) in [0, 1].

        Raises:
            BundleError: They have another shape or type, or hold NaN or infinity, or the net has no
                latent.
        """
        self._require_latent()
        tensor = check_latents(to_tensor(latents), self.latent_size)
        return self._map_batches(latents, tensor, self._decode_batch, self.image_shape)

    def reconstruct(self, images: ArrayT) -> ArrayT:
        """Encodes images and decodes the latents.

        Args:
            images: (N, C, H, W), uint8 or float in [0, 1]; uint16 if the net's images keep 16 bits.

        Returns:
            float32 (N, C, H, W) in [0, 1].

        Raises:
            BundleError: They have another shape, type or range.
        """
        tensor = check_images(to_tensor(images), self.config)

        def reconstruct_batch(batch: Tensor) -> Tensor:
            return self.model.decode(self._encode_batch(batch))

        return self._map_batches(images, tensor, reconstruct_batch, self.image_shape)

    def sample(self, count: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
        """Draws new images: latents of a standard normal distribution, decoded.

        Args:
            count: How many.
            seed: Decides which; the first images of a larger ``count`` are the same.

        Returns:
            float32 (count, C, H, W) in [0, 1].

        Raises:
            BundleError: See ``random_latents``.
        """
        return self.decode(self.random_latents(count, seed=seed))

    def random_latents(self, count: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
        """Draws latents of a standard normal distribution.

        Args:
            count: How many.
            seed: Decides which.

        Returns:
            float32 (count, latent_size).

        Raises:
            BundleError: The net is not variational, so that its latents have no such distribution.
        """
        if not self.config.model.variational:
            raise BundleError(
                "the net is not variational: nothing is known of the distribution of its latents; "
                "train one with model.variational = true"
            )
        draws = torch.Generator().manual_seed(seed)
        latents: npt.NDArray[np.float32]
        latents = torch.randn(count, self.latent_size, generator=draws).numpy()
        return latents

    def check_latents(self, latents: ArrayT, *, where: str) -> None:
        """Checks that ``decode`` accepts latents.

        Args:
            latents: The latents.
            where: Where they come from; the error message begins with it.

        Raises:
            BundleError: ``decode`` does not accept them.
        """
        try:
            check_latents(to_tensor(latents), self.latent_size)
        except BundleError as e:
            raise BundleError(f"{where}: {e}") from e

    def _require_latent(self) -> None:
        if not self.model.has_latent:
            raise BundleError(
                f"the net of {self.config.model.factory} has no encode and decode, and so no latent"
            )

    def _encode_batch(self, batch: Tensor) -> Tensor:
        batch = batch.to(self.device).contiguous(memory_format=self.layout)
        is_float = batch.is_floating_point()
        images = batch.to(torch.float32) if is_float else to_unit_float(batch)
        return self.model.encode(images)

    def _decode_batch(self, batch: Tensor) -> Tensor:
        return self.model.decode(batch.to(self.device, torch.float32))

    def _map_batches(
        self,
        given: ArrayT,
        tensor: Tensor,
        function: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
    ) -> ArrayT:
        """Applies a function batch by batch.

        Args:
            given: The user's array or tensor; decides the type of the result.
            tensor: The same as a tensor.
            function: From a batch to its result.
            shape: Of the result for one image.

        Returns:
            float32 (N, *shape).
        """
        out = torch.empty((len(tensor), *shape), dtype=torch.float32)
        with torch.inference_mode():
            for start in range(0, len(tensor), EVALUATION_BATCH):
                batch = tensor[start : start + EVALUATION_BATCH]
                out[start : start + len(batch)] = function(batch)
        return out if isinstance(given, Tensor) else out.numpy()


def bundle_from_weights(
    config: BundleConfig, weights: Mapping[str, Tensor], *, device: torch.device
) -> Bundle:
    """Builds a bundle's net with the given weights.

    Args:
        config: The bundle's configuration.
        weights: Tensors by their names in the net, on any device; they are copied.
        device: The device for the net.

    Raises:
        BundleError: The net cannot be built, or the weights do not belong to it, are not finite,
            or are outside the clip range.
    """
    try:
        with memoryless(config.model):  # allocates nothing, however large the net is
            model = build_model(
                config.model,
                image_shape=config.image_shape,
                active_latents=config.train.k_sparse,
            )
    except ModelError as e:
        raise BundleError(f"the net cannot be built: {e.args[0]}", *e.args[1:]) from e
    check_weight_names(model.state_dict(), weights)
    if model.latent_size != config.latent_size:
        raise BundleError(
            f"{CONFIG}: latent_size is {config.latent_size}, the net's is {model.latent_size}"
        )
    load_weights(model, weights, device=device)
    check_weight_values(model, config)
    return Bundle(config, model)


def write_bundle(folder: Path, config: BundleConfig, weights: Mapping[str, Tensor]) -> None:
    """Writes a bundle's weights and configuration.

    Args:
        folder: An existing folder.
        config: The configuration; its ``weights_sha256`` is computed here.
        weights: Tensors by their names in the net.

    Raises:
        BundleError: The weights do not belong to the net, are not finite, or are outside the clip
            range.
        OSError: A file cannot be written.
    """
    content = tensor_bytes({k: v.detach().cpu().contiguous() for k, v in weights.items()})
    bundle_from_weights(config, weights, device=torch.device("cpu"))
    with output_file(folder / WEIGHTS) as file:
        file.write(content)
    sha256 = hashlib.sha256(content).hexdigest()
    write_config(folder, config.model_copy(update={"weights_sha256": sha256}))


def load_bundle(folder: str | Path, *, device: str | torch.device = "cpu") -> Bundle:
    """Reads a bundle that ``searchae train`` wrote.

    Args:
        folder: The bundle's folder.
        device: The device for the net, such as ``cpu`` or ``cuda``.

    Raises:
        BundleError: The folder is not a bundle, or the bundle is damaged or was modified.
    """
    folder = Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS
    try:
        with open_input(path) as file:
            content = file.read()
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
        return replace(
            bundle_from_weights(config, weights, device=torch.device(device)), folder=folder
        )
    except BundleError as e:
        raise BundleError(f"{folder}: {e.args[0]}", *e.args[1:]) from e
