"""The forward pass in training against the model's own: values, gradients, precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from searchae.config.schema import ModelParams
from searchae.errors import UserError
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model
from searchae.training import precision
from searchae.training.fused_forward import Forward, fused_forward
from searchae.training.fused_layers import UpsampledConvolution
from searchae.training.precision import pick_precision
from tests.unit.tiny_training import VALIDATION, params, trainer

CPU = torch.device("cpu")
POOL = {"channels": (4, 8), "latent_dim": 4, "downsample": "pool"}


def model(**more: object) -> Autoencoder:
    torch.manual_seed(0)
    return build_model(ModelParams(**{**POOL, **more}), image_shape=(3, 8, 8))


def gradients(outputs: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    draws = torch.Generator().manual_seed(1)
    toward = torch.randn(outputs.shape, generator=draws, dtype=outputs.dtype)
    return list(torch.autograd.grad((outputs * toward).sum(), weights))


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsampling_and_convolution_in_one(
    kernel: int, kind: type[nn.Conv2d], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"), kind(3, 5, kernel, padding=kernel // 2)
    ).double()
    plain.to(memory_format=layout)
    joined = fused_forward(plain)
    assert [type(m) for m in joined] == [UpsampledConvolution]
    images = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    wanted = [images, *plain.parameters()]
    torch.testing.assert_close(joined(images), plain(images), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(joined(images), wanted), gradients(plain(images), wanted), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize(
    "pair",
    [
        (nn.Upsample(scale_factor=3), nn.Conv2d(3, 5, 3, padding=1)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 5, 3, padding=1)),
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 3, stride=2, padding=1)),
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 3, padding=2, dilation=2)),
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular")),
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1, groups=3)),
        (nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 5, 3, stride=2, output_padding=1)),
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 1)),
        (nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 2, padding=2)),
        (nn.Upsample(scale_factor=2), nn.ReLU()),
    ],
)
def test_other_pairs_stay_as_they_are(pair: tuple[nn.Module, nn.Module]) -> None:
    assert list(fused_forward(nn.Sequential(*pair))) == list(pair)


@pytest.mark.parametrize(
    "more",
    [{}, {"batch_norm": True}, {"output": "none"}, {"downsample": "stride"}, {"kind": "dense"}],
)
def test_a_whole_net_in_float64_is_the_model_s_own(more: dict[str, object]) -> None:
    net = model(**more).double().train()
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    latents, outputs = Forward(net, "fp32")(images)
    torch.testing.assert_close(latents, net.encoder(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(outputs, net.decoder(latents), rtol=1e-10, atol=1e-12)
    weights = list(net.parameters())
    torch.testing.assert_close(
        gradients(outputs, weights),
        gradients(net.decoder(net.encoder(images)), weights),
        rtol=1e-8,
        atol=1e-12,
    )


@pytest.mark.parametrize("more", [{}, {"kind": "dense"}])
def test_bf16_is_near_float32_with_float32_results_and_gradients(more: dict[str, object]) -> None:
    net = model(**more)
    images = torch.rand(4, 3, 8, 8)
    latents, outputs = Forward(net, "bf16")(images)
    assert latents.dtype == outputs.dtype == torch.float32
    plain = net.decoder(net.encoder(images))
    assert not torch.equal(outputs, plain)
    torch.testing.assert_close(outputs, plain, rtol=0.02, atol=0.01)
    # The output activation itself is not rounded to bf16's eight bits.
    assert not torch.equal(outputs, outputs.bfloat16().float())
    for gradient in gradients(outputs, list(net.parameters())):
        assert gradient.dtype == torch.float32


def test_a_training_in_bf16_is_near_one_in_float32_and_resumes_to_the_bit() -> None:
    trial = params(POOL)
    whole = [r.psnr_db for r in trainer(trial, precision="bf16").epochs()]
    in_fp32 = [r.psnr_db for r in trainer(trial).epochs()]
    assert in_fp32 != whole
    assert abs(in_fp32[-1] - whole[-1]) < 0.3
    torn, resumed = (trainer(trial, precision="bf16") for _ in range(2))
    epochs = torn.epochs()
    assert [next(epochs).psnr_db, next(epochs).psnr_db] == whole[:2]
    resumed.restore(torn.state())
    assert [r.psnr_db for r in resumed.epochs()] == whole[2:]


def test_evaluation_is_of_the_model_itself_in_float32() -> None:
    from searchae.training.metrics import evaluate

    run = trainer(params(POOL, epochs=1), precision="bf16")
    result = next(run.epochs())
    assert evaluate(run.model, VALIDATION, batch_size=250).psnr_db == result.psnr_db
    assert {w.dtype for w in run.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", "fp32"),
        ("flags\t\t: fpu amx_bf16 avx512_bf16 amx_tile", "bf16"),
    ],
)
def test_auto_asks_for_bf16_where_the_cpu_has_units_for_it(
    flags: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\nbugs\t: amx_bf16\n")
    monkeypatch.setattr(precision, "_CPUINFO", cpuinfo)
    assert pick_precision("auto", CPU) == found
    assert pick_precision("auto", torch.device("cuda")) == "fp32"


def test_a_precision_that_is_none() -> None:
    assert pick_precision("bf16", CPU) == "bf16"
    with pytest.raises(UserError, match="--precision fp8: use auto, fp32, bf16"):
        pick_precision("fp8", CPU)
