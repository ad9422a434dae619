"""Metrics against torchmetrics and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import metrics as reference
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from searchae.config.schema import ModelParams
from searchae.errors import DataError
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model
from searchae.training.metrics import (
    evaluate,
    evaluation_batch,
    mean_image_psnr_db,
    psnr_per_image,
    ssim,
)


def pairs(kind: str, *, channels: int = 3, side: int = 32) -> tuple[Tensor, Tensor]:
    """Reconstructions and targets, float64: noise, or smooth images and a blurred copy."""
    g = torch.Generator().manual_seed(1)
    if kind == "noise":
        first, second = torch.rand(2, 4, channels, side, side, generator=g, dtype=torch.float64)
        return first, second
    coarse = torch.rand(4, channels, 6, 6, generator=g, dtype=torch.float64)
    target = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(target, 3, stride=1, padding=1)
    return (blurred + 0.02 * torch.randn(target.shape, generator=g)).clamp(0, 1), target


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_psnr_agrees_with_torchmetrics_and_scikit_image(kind: str) -> None:
    ours = psnr_per_image(*pairs(kind))
    for value, x, y in zip(ours, *pairs(kind), strict=True):
        theirs = reference.peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=1)
        assert float(value) == pytest.approx(theirs, abs=1e-9)
        theirs = float(peak_signal_noise_ratio(x, y, data_range=1.0))
        assert float(value) == pytest.approx(theirs, abs=1e-5)


def test_psnr_of_an_exact_copy_is_capped_and_of_a_nan_is_nan() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert psnr_per_image(images, images).tolist() == [100, 100]
    broken = images.clone()
    broken[1, 0, 0, 0] = math.nan
    first, second = psnr_per_image(broken, images).tolist()
    assert first == 100
    assert math.isnan(second)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_ssim_agrees_with_torchmetrics(kind: str, channels: int) -> None:
    x, y = pairs(kind, channels=channels)
    theirs = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(x, y), theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_ssim_agrees_with_scikit_image_up_to_the_border(kind: str) -> None:
    """scikit-image averages without a border of 5 pixels, torchmetrics with a mirrored one.

    Per pixel of the interior they are the same. Near the border scikit-image's own map differs
    too, since it repeats the edge pixel when it mirrors: hence the tolerance of the full mean.
    """
    x, y = pairs(kind, channels=1)
    for value, a, b in zip(ssim(x, y), x[:, 0].numpy(), y[:, 0].numpy(), strict=True):
        _, per_pixel = reference.structural_similarity(
            b,
            a,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            full=True,
        )
        _, ours = structural_similarity_index_measure(
            torch.from_numpy(a)[None, None],
            torch.from_numpy(b)[None, None],
            data_range=1.0,
            return_full_image=True,
        )
        np.testing.assert_allclose(ours[0, 0, 5:-5, 5:-5].numpy(), per_pixel[5:-5, 5:-5], atol=1e-9)
        assert float(value) == pytest.approx(float(ours.mean()), abs=1e-9)
        assert float(value) == pytest.approx(float(per_pixel.mean()), abs=0.02)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 8, 11])
def test_ssim_of_small_images_is_finite_and_one_for_a_copy(side: int) -> None:
    x, y = pairs("noise", side=side)
    values = ssim(x, y)
    assert values.shape == (4,)
    assert ((values > -1) & (values < 1)).all()
    torch.testing.assert_close(ssim(x, x), torch.ones(4, dtype=x.dtype))


def net() -> Autoencoder:
    torch.manual_seed(0)
    return build_model(ModelParams(channels=(4, 8), latent_dim=5), image_shape=(3, 16, 16))


def images(count: int = 30) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=g)


def test_evaluate_measures_all_images_whatever_the_batch_size() -> None:
    model, data = net(), images()
    targets = data / 255
    with torch.no_grad():
        latents = model.eval().encode(targets)
        reconstruction = model(targets)
    found = evaluate(model, data, batch_size=7, with_ssim=True)
    mse = float((reconstruction - targets).square().mean())
    assert found.mse == pytest.approx(mse, rel=1e-5)
    assert found.psnr_of_mse_db == pytest.approx(-10 * math.log10(mse), abs=1e-4)
    assert found.psnr_db == pytest.approx(
        float(psnr_per_image(reconstruction, targets).mean()), abs=1e-4
    )
    assert found.ssim == pytest.approx(float(ssim(reconstruction, targets).mean()), abs=1e-5)
    assert found.sparsity == pytest.approx(float((latents.abs() < 1e-3).float().mean()))


def test_sparsity_counts_latents_or_weights_below_a_thousandth() -> None:
    model, data = net(), images()
    linear = next(m for m in model.encoder if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        linear.weight[:2] = 0
        linear.bias[:2] = torch.tensor([0.0009, -0.0011])
    assert evaluate(model, data).sparsity == pytest.approx(1 / 5, abs=0.1)
    weights = torch.cat([p.flatten() for p in model.parameters()])
    expected = float((weights.abs() < 1e-3).float().mean())
    assert evaluate(model, data, sparsity_of="weights").sparsity == pytest.approx(expected)


def test_evaluate_leaves_the_mode_as_it_was_and_does_not_touch_batch_statistics() -> None:
    torch.manual_seed(0)
    model = build_model(ModelParams(channels=(4,), batch_norm=True), image_shape=(3, 16, 16))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluate(model.train(), images())
    assert model.training
    evaluate(model.eval(), images())
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_noise_is_fixed_by_the_seed_and_the_target_stays_clean() -> None:
    model, data = net(), images()
    first = evaluate(model, data, noise_std=0.3, seed=1)
    assert evaluate(model, data, noise_std=0.3, seed=1) == first
    assert evaluate(model, data, noise_std=0.3, seed=2) != first
    assert first.mse != evaluate(model, data).mse
    # A model that ignores its input has the error of the clean target, whatever the noise.
    torch.nn.init.zeros_(next(iter(model.decoder)).get_parameter("weight"))
    assert evaluate(model, data, noise_std=0.3).mse == evaluate(model, data).mse


def test_the_mean_image_baseline_is_the_psnr_of_the_mean_training_image() -> None:
    train, validation = images(40), images(11)
    mean = (train.double() / 255).mean(0, keepdim=True)
    expected = psnr_per_image(mean, validation.double() / 255).mean()
    assert mean_image_psnr_db(train, validation) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8), images(0)]
)
def test_what_are_no_images_is_refused(wrong: Tensor) -> None:
    with pytest.raises(DataError, match=r"must be uint8 or uint16 \(N, C, H, W\)"):
        evaluate(net(), wrong)
    with pytest.raises(DataError, match="evaluated images"):
        mean_image_psnr_db(images(2), wrong)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 28, 28), 250), ((3, 32, 32), 250), ((3, 64, 64), 62), ((3, 512, 512), 8)],
)
def test_fewer_of_larger_images_are_evaluated_at_a_time(
    shape: tuple[int, int, int], count: int
) -> None:
    assert evaluation_batch(torch.zeros(1, *shape)) == count
