"""Autoencoders: sizes, ranges, and what cannot be built."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from searchae.config.schema import Activation, Layer, ModelParams
from searchae.errors import ModelError
from searchae.models.activations import MONOTONE
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model, parameter_count
from searchae.models.gaussian import GaussianLatent
from searchae.models.k_sparse import KSparse
from searchae.models.layout import conv_layout
from searchae.models.residual import ResidualBlock


def model(
    image_shape: tuple[int, int, int] = (1, 28, 28),
    *,
    active_latents: int | None = None,
    **params: Any,
) -> Autoencoder:
    torch.manual_seed(0)
    return build_model(
        ModelParams(**params), image_shape=image_shape, active_latents=active_latents
    )


def spatial_sizes(net: nn.Sequential, value: torch.Tensor) -> list[int]:
    """Heights after each convolution."""
    sizes = []
    for module in net:
        value = module(value)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            sizes.append(value.shape[2])
    return sizes


def test_strided_sizes_are_mirrored_back_through_odd_ones() -> None:
    net = model(channels=(4, 8, 16), latent_dim=5)
    assert spatial_sizes(net.encoder, torch.rand(1, 1, 28, 28)) == [14, 7, 4]
    assert spatial_sizes(net.decoder, torch.rand(1, 5)) == [7, 14, 28]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    kernel_size=st.sampled_from([1, 3, 5]),
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    bottleneck=st.sampled_from(["dense", "gap", "none"]),
)
def test_any_image_size_comes_back_from_a_strided_net(
    shape: tuple[int, int, int],
    kernel_size: int,
    widths: list[int],
    bottleneck: str,
) -> None:
    net = model(
        shape,
        channels=widths,
        kernel_size=kernel_size,
        bottleneck=bottleneck,
        latent_dim=widths[-1],
    ).eval()
    images = torch.rand(2, *shape)
    latents = net.encode(images)
    assert latents.shape == (2, net.latent_size)
    assert net.decode(latents).shape == net(images).shape == images.shape


@pytest.mark.parametrize("latent_activation", ["none", "same"])
@pytest.mark.parametrize(
    "params",
    [
        {"kind": "dense", "hidden": (7, 5), "latent_dim": 3},
        {"downsample": "pool", "channels": (4, 8), "latent_dim": 3},
        {"downsample": "pool", "channels": (4, 8), "bottleneck": "none"},
        {"downsample": "pool", "channels": (4, 8), "bottleneck": "gap", "latent_dim": 8},
        {"batch_norm": True, "channels": (4, 8), "latent_dim": 3},
        {"residual_blocks": 2, "group_norm": 2, "channels": (4, 8), "latent_dim": 3},
        {"residual_blocks": 1, "dropout": 0.5, "channels": (4, 8), "bottleneck": "none"},
        {"kind": "dense", "hidden": (7, 5), "latent_dim": 3, "dropout": 0.5},
    ],
)
def test_forward_is_decode_after_encode(params: dict[str, Any], latent_activation: str) -> None:
    net = model(**params, latent_activation=latent_activation).eval()
    images = torch.rand(2, 1, 28, 28)
    latents = net.encode(images)
    assert latents.shape == (2, net.latent_size)
    assert torch.equal(net(images), net.decode(latents))
    if latent_activation == "same":
        assert (latents >= 0).all()  # relu


def test_residual_blocks_come_after_each_hidden_layer() -> None:
    plain = model(channels=(4, 8), latent_dim=3)
    net = model(channels=(4, 8), latent_dim=3, residual_blocks=2)
    blocks = [m for m in net.modules() if isinstance(m, ResidualBlock)]
    assert len(blocks) == 2 * 3, "4, 8; 4 on the way back"
    a_block = [2 * (9 * c * c + c) for c in (4, 8, 4)]
    assert parameter_count(net) == parameter_count(plain) + 2 * sum(a_block)
    features = torch.rand(2, 4, 5, 7)
    for layer in blocks[0].layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    assert torch.equal(blocks[0](features), features)


def test_dropout_is_for_training_only() -> None:
    images = torch.rand(2, 1, 28, 28)
    for params in ({"channels": (4, 8)}, {"kind": "dense", "hidden": (50, 40)}):
        net = model(**params, latent_dim=3, dropout=0.5)
        assert not torch.equal(net.train()(images), net(images))
        assert torch.equal(net.eval()(images), net(images))


def test_a_variational_net_encodes_to_the_mean() -> None:
    net = model(channels=(4, 8), latent_dim=3, variational=True)
    images = torch.rand(2, 1, 28, 28)
    head = net.encoder[-1]
    assert isinstance(head, GaussianLatent)
    means, log_variances = head.distribution(net.encoder[:-1](images))
    assert torch.equal(net.encode(images), means)
    assert means.shape == log_variances.shape == (2, 3) == (2, net.latent_size)


# -- k-sparse latents


def test_the_largest_values_in_magnitude_are_kept() -> None:
    latents = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    found = KSparse(5)(latents)
    for values, made in zip(latents.numpy(), found.numpy(), strict=True):
        kept = np.argsort(-np.abs(values))[:5]
        assert set(np.flatnonzero(made)) == set(kept)
        np.testing.assert_array_equal(made[kept], values[kept])


def test_of_equal_values_too_only_so_many_are_kept() -> None:
    found = KSparse(3)(torch.tensor([[1.0, -1.0, 1.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0, 2.0]]))
    assert found.count_nonzero(1).tolist() == [3, 1]


def test_what_is_kept_has_a_gradient_and_nothing_else_has() -> None:
    latents = torch.randn(7, 6, requires_grad=True)
    found = KSparse(2)(latents)
    (slopes,) = torch.autograd.grad((found * 3).sum(), latents)
    assert torch.equal(slopes, 3.0 * (found != 0))


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "dense", "hidden": (7,), "latent_dim": 6, "activation": "tanh"},
        {"channels": (4, 8), "latent_dim": 6, "latent_activation": "same"},
        {"channels": (4, 8), "latent_dim": 6, "residual_blocks": 1, "dropout": 0.2},
        {"channels": (4, 8), "bottleneck": "gap", "latent_dim": 8},
        {"channels": (4, 2), "bottleneck": "none"},
    ],
)
def test_a_k_sparse_net_is_the_same_net_with_fewer_latents(params: dict[str, Any]) -> None:
    plain, sparse = model(**params).eval(), model(**params, active_latents=3).eval()
    assert plain.state_dict().keys() == sparse.state_dict().keys()
    assert all(torch.equal(w, sparse.state_dict()[n]) for n, w in plain.state_dict().items())
    images = torch.rand(5, 1, 28, 28)
    latents = sparse.encode(images)
    assert sparse.latent_size == plain.latent_size == latents.shape[1]
    assert (latents.count_nonzero(1) <= 3).all()
    assert torch.equal(latents, KSparse(3)(plain.encode(images)))
    assert torch.equal(sparse(images), plain.decode(latents))


def test_all_latents_may_be_kept_but_no_more() -> None:
    images = torch.rand(2, 1, 28, 28)
    plain, all_kept = (model(latent_dim=6, active_latents=n).eval() for n in (None, 6))
    assert torch.equal(plain.encode(images), all_kept.encode(images))
    with pytest.raises(ModelError, match=r"7 of the latent's values cannot be kept, .* only 6"):
        model(latent_dim=6, active_latents=7)
    with pytest.raises(ModelError, match="is not for variational nets"):
        model(latent_dim=6, variational=True, active_latents=2)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"group_norm": 3}, "3 groups, but a layer has 4 channels"),
        ({"group_norm": 2, "batch_norm": True}, "not together with batch_norm"),
        ({"variational": True, "bottleneck": "none"}, 'needs bottleneck = "dense"'),
        ({"variational": True, "latent_activation": "same"}, 'latent_activation = "none"'),
    ],
)
def test_what_does_not_go_together_is_said(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        model(channels=(4, 8), **params)


def test_without_a_bottleneck_the_latent_is_the_flattened_feature_map() -> None:
    net = model(channels=(4, 8), bottleneck="none", latent_dim=3)
    assert net.latent_size == 8 * 7 * 7


def test_global_average_pooling_decodes_from_a_single_pixel() -> None:
    net = model(channels=(4, 8), bottleneck="gap", latent_dim=8)
    assert spatial_sizes(net.decoder, torch.rand(1, 8)) == [7, 14, 28]


@pytest.mark.parametrize("name", get_args(Activation))
def test_pooling_before_a_monotone_activation_gives_the_same_values_and_gradients(
    name: str,
) -> None:
    net = model(downsample="pool", channels=(4,), activation=name)
    block = net.encoder[:3]  # convolution, and the two in either order
    kinds = [type(m) for m in block]
    assert kinds.index(nn.MaxPool2d) == (1 if name in MONOTONE else 2)
    assert (name in MONOTONE) == (name not in ("gelu", "silu"))
    convolution = block[0]
    activation, pool = sorted(block[1:], key=lambda m: isinstance(m, nn.MaxPool2d))
    images = torch.rand(3, 1, 28, 28) * 8 - 4
    outputs, gradients = [], []
    for order in (block, [convolution, activation, pool]):
        value = images.clone().requires_grad_()
        result = value
        for module in order:
            result = module(result)
        outputs.append(result)
        gradients.append(torch.autograd.grad(result.square().sum(), value)[0])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


def test_symmetric_images_are_mapped_inside_and_back_outside() -> None:
    net = model(kind="dense", hidden=(4,), latent_dim=2, output="tanh", image_range="symmetric")
    images = torch.rand(3, 1, 28, 28)
    own = net.to_own_range(images)
    assert own.min() < -0.9
    torch.testing.assert_close(net.to_unit_range(own), images)
    expected = (net.decoder(net.encoder(images * 2 - 1)) + 1) / 2
    torch.testing.assert_close(net(images), expected)


def test_reconstructions_are_clamped_in_evaluation_only() -> None:
    net = model(kind="dense", hidden=(4,), latent_dim=2, output="none")
    nn.init.constant_(net.decoder[-2].get_parameter("bias"), 3.0)
    images = torch.rand(3, 1, 28, 28)
    assert net.train()(images).max() > 1
    assert net.eval()(images).max() == 1
    assert net.train().decode(net.encode(images)).max() == 1


def test_the_last_layer_has_the_output_activation_and_no_norm() -> None:
    net = model(batch_norm=True, channels=(4, 8), output="tanh")
    assert [type(m) for m in net.decoder[-2:]] == [nn.ConvTranspose2d, nn.Tanh]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 3


def test_explicit_layers_pool_upsample_and_choose_their_kind() -> None:
    net = model(
        encoder=(Layer(channels=4, pool=2), Layer(channels=6, pool=2)),
        decoder=(
            Layer(channels=4, upsample=2),
            Layer(channels=3, upsample=2, transpose=False),
            Layer(channels=1, transpose=False),
        ),
        latent_dim=2,
    )
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    kinds = [type(m) for m in net.decoder if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert kinds == [nn.ConvTranspose2d, nn.Conv2d, nn.Conv2d]


def test_frozen_parameters_are_not_counted() -> None:
    net = model(kind="dense", hidden=(4,), latent_dim=2)
    before = parameter_count(net)
    net.encoder[1].get_parameter("bias").requires_grad = False
    assert before - parameter_count(net) == 4


TOO_LARGE_DECODER = {
    "encoder": (Layer(channels=4, stride=2),),
    "decoder": (Layer(channels=1, kernel_size=4, stride=2, padding=0),),
}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"downsample": "pool"}, r'model\.downsample.*24x24 or 32x32.*not 28x28.*"stride"'),
        ({"bottleneck": "gap", "latent_dim": 10}, r"model\.latent_dim: 10.*latent_dim = 128"),
        ({"kernel_size": 4}, r"model\.kernel_size: must be odd, not 4"),
        (TOO_LARGE_DECODER, r"gives 1x30x30, but the images are 1x28x28.*4x14x14 -> 1x30x30"),
        (
            {"encoder": (Layer(channels=2, kernel_size=30, padding=0),), "decoder": ()},
            r"model\.encoder: layer 1 leaves nothing of the image \(1x28x28 -> 2x-1x-1\)",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_key_and_a_way_out(
    params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        # model_copy: an empty decoder passes no validation, and is never reached here.
        build_model(ModelParams().model_copy(update=params), image_shape=(1, 28, 28))


def test_an_image_shape_needs_three_positive_sizes() -> None:
    with pytest.raises(ModelError, match=r"\(channels, height, width\), not \(28, 28\)"):
        build_model(ModelParams(), image_shape=(28, 28))  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_stride_from_one_pixel_to_one_pixel_makes_no_difference_and_is_left_out(
    kernel: int,
) -> None:
    """In bf16 with AMX units, torch leaves a part of such weights' gradients to chance."""
    params = ModelParams(channels=(2, 4, 8, 16), kernel_size=kernel, latent_dim=2)
    layout = conv_layout(params, image_shape=(1, 4, 4))
    assert [layer.stride for layer in layout.encoder] == [2, 2, 1, 1]
    assert [layer.stride for layer in layout.decoder] == [1, 1, 2, 2]
    inner = layout.encoder[2]
    weights, images = torch.randn(8, 4, kernel, kernel), torch.randn(3, 4, 1, 1)
    strided = F.conv2d(images, weights, stride=2, padding=inner.padding)
    assert torch.allclose(strided, F.conv2d(images, weights, padding=inner.padding), atol=1e-5)


@pytest.mark.parametrize("size", [4, 8, 16, 31])
def test_no_gradient_is_left_to_chance_in_bf16(size: int) -> None:
    """Memory that is taken up again holds NaN here, as it may at any time."""
    params = ModelParams(channels=(4, 8, 16, 32, 64), latent_dim=4)
    net = build_model(params, image_shape=(1, size, size))
    images = torch.rand(4, 1, size, size)
    for _ in range(5):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(images).float().square().mean()
            dirt = [torch.full((n,), math.nan) for n in (64, 1024, 16384) for _ in range(20)]
            del dirt
        loss.backward()
        gradients = [p.grad for p in net.parameters()]
        assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)
