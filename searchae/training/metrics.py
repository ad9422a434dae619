"""Quality of reconstructions: MSE, PSNR, SSIM and sparsity, for images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from searchae.data import release
from searchae.models import Autoencoder
from searchae.training.generators import named_generator
from searchae.training.images import check_images, gaussian, mean_image, noisy, to_unit_float
from searchae.training.memory_format import preferred_memory_format
from searchae.training.regularizers import penalised_weights

ForwardPass = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A forward pass through a model.

Takes images, float (N, C, H, W) in the model's own range; returns latents, float (N, latent_size),
and reconstructions, float (N, C, H, W) in the model's own range.
"""

EVALUATION_BATCH = 250
"""Images of at most 32x32x3 values that are evaluated at a time, wherever a model is: results
depend on it in the last bits.

On a CPU this is 1.3 to 2 times as fast as 1000, whose intermediate results do not fit the caches.
"""
_BATCH_VALUES = EVALUATION_BATCH * 32 * 32 * 3
_LEAST_BATCH = 8


def evaluation_batch(images: Tensor) -> int:
    """Returns how many images are evaluated at a time: fewer of larger ones, to bound the memory.

    Args:
        images: (N, C, H, W).
    """
    values = images[0].numel()
    return max(_LEAST_BATCH, min(EVALUATION_BATCH, _BATCH_VALUES // values))


MAX_PSNR_DB = 100.0
"""PSNR of an exact reconstruction; the true value is infinite, and so would be any mean."""


@dataclass(frozen=True)
class Metrics:
    """A model's quality on a set of images, as means.

    Attributes:
        mse: Mean squared error over all images, pixels and channels, for values in [0, 1].
        psnr_db: PSNR of each image, averaged over the images, in dB.
        psnr_of_mse_db: PSNR of ``mse``, in dB; never above ``psnr_db`` (Jensen's inequality).
        sparsity: Share of latents (or weights) below 1e-3 in magnitude.
        ssim: SSIM per image, averaged; None if it was not asked for.
    """

    mse: float
    psnr_db: float
    psnr_of_mse_db: float
    sparsity: float
    ssim: float | None = None


@dataclass(frozen=True, eq=False)
class PerImage:
    """A model's quality on each image of a set.

    Attributes:
        mse: Float64 (N,), on the CPU, for values in [0, 1].
        ssim: Float64 (N,), on the CPU; None if it was not asked for.
        sparsity: Share of all latents below 1e-3 in magnitude.
        hoyer: Hoyer's sparsity of each image's latent, averaged over the images; see ``hoyer``.
    """

    mse: Tensor
    ssim: Tensor | None
    sparsity: float
    hoyer: float

    @property
    def psnr_db(self) -> Tensor:
        """PSNR of each image, float64 (N,), in dB."""
        return psnr_of_mse_db(self.mse)


def psnr_per_image(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image, 10 log10(peak² / MSE) with peak 1.

    Args:
        reconstruction: Float (N, C, H, W), in [0, 1].
        target: Float (N, C, H, W), in [0, 1].

    Returns:
        Float (N,), in dB, at most ``MAX_PSNR_DB``; NaN where the reconstruction holds NaN.
    """
    return psnr_of_mse_db(_mse_per_image(reconstruction, target))


def ssim(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Returns the structural similarity (SSIM) of each image.

    Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from error
    visibility to structural similarity", IEEE Transactions on Image Processing 13(4), 2004.

    Computed by torchmetrics with a data range of 1 and a Gaussian window of 11x11 pixels with a
    standard deviation of 1.5 pixels. The image is mirrored at its border and the mean is taken over
    all pixels (scikit-image takes only those whose window lies within the image). Images with a
    side below 6 pixels cannot be mirrored that far: they get a smaller window with the same ratio
    of window to deviation.

    Args:
        reconstruction: Float (N, C, H, W), in [0, 1].
        target: Float (N, C, H, W), in [0, 1].

    Returns:
        Float (N,), in [-1, 1].
    """
    # Imported here: it takes seconds, and a search does not need it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    radius = min(5, min(target.shape[-2:]) - 1)
    _, per_pixel = structural_similarity_index_measure(
        reconstruction,
        target.to(reconstruction.dtype),
        sigma=1.5 if radius == 5 else max(radius, 0.1) / 3.5,
        data_range=1.0,
        return_full_image=True,
    )
    # Averaged here, since versions of torchmetrics differ in whether they count the border.
    similarity: Tensor = per_pixel.flatten(1).mean(1)
    return similarity


def evaluate(
    model: Autoencoder,
    images: Tensor,
    *,
    noise_std: float = 0.0,
    seed: int = 0,
    batch_size: int | None = None,
    with_ssim: bool = False,
    sparsity_of: Literal["latent", "weights"] = "latent",
    forward: ForwardPass | None = None,
) -> Metrics:
    """Compares reconstructions with clean images, in evaluation mode and without gradients.

    Args:
        model: On any device; its mode is restored afterwards.
        images: uint8 or uint16 (N, C, H, W), on any device.
        noise_std: Standard deviation of Gaussian noise on the input, for values in [0, 1].
        seed: The seed of the noise, which also depends on ``batch_size``.
        batch_size: Images at a time; ``evaluation_batch`` if unset.
        with_ssim: Whether to measure SSIM too.
        sparsity_of: What ``sparsity`` counts.
        forward: The forward pass to use instead of the model's own.

    Returns:
        The means over the images.

    Raises:
        DataError: ``images`` have another type or shape, or there are none.
    """
    found = evaluate_images(
        model,
        images,
        noise_std=noise_std,
        seed=seed,
        batch_size=batch_size,
        with_ssim=with_ssim,
        forward=forward,
    )
    sparsity = found.sparsity
    if sparsity_of == "weights":
        weights = [w.detach() for w in penalised_weights(model)]
        sparsity = int(near_zero(weights)) / sum(w.numel() for w in weights)
    mse = found.mse.mean()
    return Metrics(
        mse=float(mse),
        psnr_db=float(found.psnr_db.mean()),
        psnr_of_mse_db=float(psnr_of_mse_db(mse)),
        sparsity=sparsity,
        ssim=None if found.ssim is None else float(found.ssim.mean()),
    )


def evaluate_images(
    model: Autoencoder,
    images: Tensor,
    *,
    noise_std: float = 0.0,
    seed: int = 0,
    batch_size: int | None = None,
    with_ssim: bool = False,
    forward: ForwardPass | None = None,
) -> PerImage:
    """Measures a model's reconstruction of each image; see ``evaluate`` for the arguments.

    Returns:
        The measures of each image, in the order of the images.

    Raises:
        DataError: ``images`` have another type or shape, or there are none.
    """
    check_images(images, split="evaluated")
    batch_size = batch_size or evaluation_batch(images)
    draws = named_generator(seed, "evaluation noise")
    reconstruct = partial(_reconstruct, model, forward)
    device, layout = _device(model), preferred_memory_format(model)
    # Small results that are allocated in between would break up the memory of each part.
    mses, sparsities, similarities = (torch.empty(len(images), device=device) for _ in range(3))
    zeros = torch.zeros((), dtype=torch.int64, device=device)
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            part, place = images[start : start + batch_size], slice(start, start + batch_size)
            targets = to_unit_float(part.to(device, memory_format=layout))
            inputs = targets
            if noise_std:
                noise = gaussian(tuple(part.shape), noise_std, draws)
                inputs = noisy(targets, noise.to(targets.device))
            latents, reconstruction = reconstruct(inputs)
            mses[place] = _mse_per_image(reconstruction, targets)
            zeros += near_zero([latents])
            sparsities[place] = hoyer(latents)
            if with_ssim:
                similarities[place] = ssim(reconstruction, targets)
            release(images)
    return PerImage(
        mse=mses.cpu().double(),
        ssim=similarities.cpu().double() if with_ssim else None,
        sparsity=int(zeros) / (len(images) * model.latent_size),
        hoyer=float(sparsities.double().mean()),
    )


def near_zero(values: list[Tensor]) -> Tensor:
    """Counts the values below 1e-3 in magnitude; returns an int64 scalar tensor."""
    return torch.stack([(v.abs() < 1e-3).sum() for v in values]).sum()


def hoyer(latents: Tensor) -> Tensor:
    """Returns Hoyer's measure of how sparse each latent is.

    (sqrt(n) - L1 / L2) / (sqrt(n) - 1) for n values: 0 if all have the same magnitude, 1 if all but
    one are 0. Unlike a share of values near 0 it does not depend on their scale. P. O. Hoyer,
    "Non-negative matrix factorization with sparseness constraints", JMLR 5, 2004.

    Args:
        latents: Float (N, n).

    Returns:
        Float (N,), in [0, 1]; 1 where all values are 0, and 0 where n is 1.
    """
    flat = latents.flatten(1)
    root: float = flat.shape[1] ** 0.5
    if root == 1:
        return torch.zeros(len(flat), device=flat.device)
    norm = flat.norm(dim=1)
    ratio = flat.abs().sum(1) / norm.where(norm > 0, torch.ones_like(norm))
    found = ((root - ratio) / (root - 1)).clamp(0, 1)
    measure: Tensor = found.where(norm > 0, torch.ones_like(norm))
    return measure


def mean_image_psnr_db(train: Tensor, images: Tensor) -> float:
    """Returns the PSNR of a baseline that reconstructs every image as the mean training image.

    Args:
        train: uint8 or uint16 (N, C, H, W).
        images: uint8 or uint16 (M, C, H, W), on the same device.

    Returns:
        PSNR of each image, averaged over the images, in dB.

    Raises:
        DataError: Either has another type or shape, or is empty.
    """
    return float(mean_image_psnr_per_image(train, images).mean())


def mean_image_psnr_per_image(train: Tensor, images: Tensor) -> Tensor:
    """Returns the PSNR of each image reconstructed as the mean training image.

    Args:
        train: uint8 or uint16 (N, C, H, W).
        images: uint8 or uint16 (M, C, H, W), on the same device.

    Returns:
        Float64 (M,), in dB.

    Raises:
        DataError: Either has another type or shape, or is empty.
    """
    check_images(train, split="training")
    check_images(images, split="evaluated")
    mean = mean_image(train)
    found = torch.empty(len(images), device=images.device)
    size = evaluation_batch(images)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        found[start : start + size] = psnr_per_image(mean[None], to_unit_float(part))
        release(images)
    return found.double()


def _reconstruct(
    model: Autoencoder, forward: ForwardPass | None, inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns latents and reconstructions of images in [0, 1]."""
    if forward is None:
        latents = model.encode(inputs)
        return latents, model.decode(latents)
    latents, own = forward(model.to_own_range(inputs))
    return latents, model.to_unit_range(own).clamp(0, 1)


def _mse_per_image(reconstruction: Tensor, target: Tensor) -> Tensor:
    return (reconstruction - target).square().flatten(1).mean(1)


def psnr_of_mse_db(mse: Tensor) -> Tensor:
    """Returns the PSNR of mean squared errors on the [0, 1] scale, 10 log10(1 / MSE).

    Args:
        mse: Float, of any shape.

    Returns:
        The same shape, in dB, at most ``MAX_PSNR_DB``.
    """
    return -10 * torch.log10(mse.clamp(min=10 ** (-MAX_PSNR_DB / 10)))


def _device(model: Autoencoder) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def evaluation_mode(model: Autoencoder) -> Iterator[None]:
    """Within the block, a model evaluates."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
