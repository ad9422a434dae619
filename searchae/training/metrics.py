"""How good a reconstruction is: MSE, PSNR, SSIM, sparsity. All on images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from searchae.models import Autoencoder
from searchae.training.generators import named_generator
from searchae.training.images import check_images, gaussian, noisy, to_unit_float
from searchae.training.regularizers import near_zero, penalised_weights

ForwardPass = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (N, C, H, W) in a model's own range to its latents (N, latent_size) and its images."""

EVALUATION_BATCH = 250
"""Images that are evaluated at a time, wherever a model is: results depend on it in the last bits.

On a CPU this is 1.3 to 2 times as fast as 1000, whose intermediate results do not fit the caches.
"""

MAX_PSNR_DB = 100.0
"""PSNR of an exact reconstruction, whose true value is infinite and would spoil any mean."""


@dataclass(frozen=True)
class Metrics:
    """A model's quality on a set of images.

    Attributes:
        mse: Mean squared error over all images, pixels and channels, on the [0, 1] scale.
        psnr_db: PSNR per image, averaged, in dB.
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
        mse: Float64 (N,), on the CPU, on the [0, 1] scale.
        ssim: Float64 (N,), on the CPU; None if it was not asked for.
        sparsity: Share of all latents below 1e-3 in magnitude.
    """

    mse: Tensor
    ssim: Tensor | None
    sparsity: float

    @property
    def psnr_db(self) -> Tensor:
        """Float64 (N,), in dB."""
        return _psnr_db(self.mse)


def psnr_per_image(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE), of each image.

    Args:
        reconstruction: Float (N, C, H, W), on the [0, 1] scale.
        target: The same.

    Returns:
        Float (N,), in dB, at most ``MAX_PSNR_DB``; NaN where the reconstruction has one.
    """
    return _psnr_db(_mse_per_image(reconstruction, target))


def ssim(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004), with a data range of 1.

    As torchmetrics computes it: a Gaussian window of 11x11 pixels with a deviation of 1.5,
    averaged over all pixels, the image mirrored at its border (scikit-image averages over the
    pixels whose window lies within the image). Images with a side below 6 pixels, which cannot
    be mirrored that far, have a smaller window with the same ratio of window to deviation.

    Args:
        reconstruction: Float (N, C, H, W), in [0, 1].
        target: The same.

    Returns:
        Float (N,), in [-1, 1].
    """
    # Importing torchmetrics takes seconds, which a search need not spend.
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
    batch_size: int = EVALUATION_BATCH,
    with_ssim: bool = False,
    sparsity_of: Literal["latent", "weights"] = "latent",
    forward: ForwardPass | None = None,
) -> Metrics:
    """Measures a model, in evaluation mode and without gradients, against clean images.

    Args:
        model: On any device.
        images: uint8 (N, C, H, W), on any device.
        noise_std: Deviation of Gaussian noise on the input, on the [0, 1] scale.
        seed: Of the noise: the same for the same seed and ``batch_size``.
        batch_size: Images at a time.
        with_ssim: Also measure SSIM.
        sparsity_of: What ``sparsity`` counts.
        forward: Another way through the same model; its own if unset.

    Raises:
        DataError: ``images`` are not such a tensor.
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
        psnr_of_mse_db=float(_psnr_db(mse)),
        sparsity=sparsity,
        ssim=None if found.ssim is None else float(found.ssim.mean()),
    )


def evaluate_images(
    model: Autoencoder,
    images: Tensor,
    *,
    noise_std: float = 0.0,
    seed: int = 0,
    batch_size: int = EVALUATION_BATCH,
    with_ssim: bool = False,
    forward: ForwardPass | None = None,
) -> PerImage:
    """Measures a model on each image; see ``evaluate``.

    Raises:
        DataError: ``images`` are not such a tensor.
    """
    check_images(images, split="evaluated")
    draws = named_generator(seed, "evaluation noise")
    through = partial(_through, model, forward)
    mses, similarities, zeros = [], [], []
    with _evaluating(model), torch.inference_mode():
        for part in torch.split(images, batch_size):
            targets = to_unit_float(part.to(_device(model)))
            inputs = targets
            if noise_std:
                noise = gaussian(tuple(part.shape), noise_std, draws)
                inputs = noisy(targets, noise.to(targets.device))
            latents, reconstruction = through(inputs)
            mses.append(_mse_per_image(reconstruction, targets))
            zeros.append(near_zero([latents]))
            if with_ssim:
                similarities.append(ssim(reconstruction, targets))
    return PerImage(
        mse=torch.cat(mses).cpu().double(),
        ssim=torch.cat(similarities).cpu().double() if similarities else None,
        sparsity=int(torch.stack(zeros).sum()) / (len(images) * model.latent_size),
    )


def mean_image_psnr_db(train: Tensor, images: Tensor) -> float:
    """The plainest baseline: every image reconstructed as the mean training image.

    Args:
        train: uint8 (N, C, H, W).
        images: uint8 (M, C, H, W), on the same device.

    Returns:
        PSNR per image, averaged, in dB.

    Raises:
        DataError: Either is not such a tensor.
    """
    check_images(train, split="training")
    check_images(images, split="evaluated")
    # Integer sums are exact; a float mean over many images is not.
    mean = to_unit_float(train.sum(0, dtype=torch.int64).div(len(train)))
    parts = [psnr_per_image(mean[None], to_unit_float(part)) for part in torch.split(images, 1000)]
    return float(torch.cat(parts).double().mean())


def _through(
    model: Autoencoder, forward: ForwardPass | None, inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """Latents and reconstructions of images in [0, 1]."""
    if forward is None:
        latents = model.encode(inputs)
        return latents, model.decode(latents)
    latents, own = forward(model.to_own_range(inputs))
    return latents, model.to_unit_range(own).clamp(0, 1)


def _mse_per_image(reconstruction: Tensor, target: Tensor) -> Tensor:
    return (reconstruction - target).square().flatten(1).mean(1)


def _psnr_db(mse: Tensor) -> Tensor:
    return -10 * torch.log10(mse.clamp(min=10 ** (-MAX_PSNR_DB / 10)))


def _device(model: Autoencoder) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _evaluating(model: Autoencoder) -> Iterator[None]:
    """Evaluation mode within it, afterwards the mode from before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
