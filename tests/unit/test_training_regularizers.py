"""Regularizers: what they promise about weights and latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from searchae.errors import DivergedError, ModelError
from searchae.training.precision import Precision
from searchae.training.regularizers import contractive_penalty
from searchae.training.trainer import Trainer
from tests.unit.tiny_training import VALIDATION, params, trainer


@settings(max_examples=15, deadline=None)
@given(
    optimizer=st.sampled_from(["adam", "adamw", "nadam", "rmsprop", "sgd"]),
    learning_rate=st.floats(-6, 1).map(lambda e: 10**e),
    activation=st.sampled_from(["relu", "sigmoid", "tanh", "elu", "gelu"]),
    output=st.sampled_from(["sigmoid", "none"]),
    regularizer=st.sampled_from(
        [("clip", "latent"), ("clip+l1", "latent"), ("clip+l1", "weights")]
    ),
    clip=st.sampled_from([0.01, 0.5, 10.0]),
    epochs=st.integers(0, 3),
    batch_norm=st.booleans(),
)
def test_no_weight_is_ever_outside_the_clip(
    optimizer: str,
    learning_rate: float,
    activation: str,
    output: str,
    regularizer: tuple[str, str],
    clip: float,
    epochs: int,
    *,
    batch_norm: bool,
) -> None:
    model = {"activation": activation, "output": output, "batch_norm": batch_norm}
    run = trainer(
        params(
            model,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=0.5,
            regularizer=regularizer[0],
            l1_target=regularizer[1],
            l1_weight=10.0,
            clip=clip,
            epochs=max(1, epochs),
        )
    )
    try:
        for _ in zip(range(epochs), run.epochs(), strict=False):
            assert largest_clipped(run) <= clip
    except DivergedError:
        return
    assert largest_clipped(run) <= clip  # false for NaN


def largest_clipped(run: Trainer) -> float:
    norms = {
        id(p) for m in run.model.modules() if isinstance(m, _BatchNorm) for p in m.parameters()
    }
    weights = [p.detach().flatten() for p in run.model.parameters() if id(p) not in norms]
    return float(torch.cat(weights).abs().max())


def test_norms_keep_their_scale_under_a_clip() -> None:
    run = trainer(params({"batch_norm": True}, clip=0.1))
    list(run.epochs())
    scales = [m.weight for m in run.model.modules() if isinstance(m, _BatchNorm)]
    assert scales
    assert all((s > 0.5).all() for s in scales)


def test_without_a_clip_weights_grow_past_it() -> None:
    run = trainer(params(regularizer="none", clip=0.01, epochs=1))
    list(run.epochs())
    assert largest_clipped(run) > 0.01


@pytest.mark.parametrize("target", ["latent", "weights"])
def test_l1_makes_its_target_smaller(target: str) -> None:
    def size(regularizer: str) -> float:
        run = trainer(params(regularizer=regularizer, l1_weight=1.0, l1_target=target, epochs=6))
        list(run.epochs())
        with torch.no_grad():
            if target == "latent":
                return float(run.model.encode(VALIDATION / 255).abs().mean())
            return float(torch.cat([p.flatten() for p in run.model.parameters()]).abs().mean())

    assert size("l1") < 0.5 * size("none")


def test_sparsity_is_of_what_the_penalty_is_on() -> None:
    run = trainer(params(l1_target="weights", epochs=1))
    (result,) = run.epochs()
    weights = torch.cat([p.flatten() for p in run.model.parameters()])
    assert result.sparsity == pytest.approx(float((weights.abs() < 1e-3).float().mean()))


# -- the contractive penalty


def jacobians(run: Trainer, images: Tensor) -> Tensor:
    """Each image's, float (N, latent_size, C, H, W)."""
    jacobian = torch.func.jacrev(lambda image: run.model.encoder(image[None])[0])
    return torch.stack([jacobian(image) for image in run.model.to_own_range(images)])


def squared_norm(run: Trainer) -> float:
    """The mean squared Frobenius norm of the validation images' Jacobians."""
    run.model.eval()
    return float(jacobians(run, VALIDATION / 255).square().sum().detach() / len(VALIDATION))


@pytest.mark.parametrize("model", [{"activation": "tanh"}, {"kind": "dense", "hidden": (9,)}])
def test_the_penalty_of_given_directions_is_that_of_the_whole_jacobian(
    model: dict[str, Any],
) -> None:
    run = trainer(params(model))
    inputs = (VALIDATION[:3] / 255).requires_grad_()
    directions = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = contractive_penalty(run.model.encoder(inputs), inputs, directions)
    whole = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        run.model.encoder, inputs.detach()
    )
    products = torch.einsum("bl,blnchw->nchw", directions, whole)
    torch.testing.assert_close(found, products.square().flatten(1).sum(1).mean())
    assert found.requires_grad


@pytest.mark.parametrize("image_range", ["unit", "symmetric"])
def test_the_penalty_is_expected_to_be_the_jacobian_s_squared_norm(image_range: str) -> None:
    run = trainer(params({"activation": "tanh", "latent_dim": 6, "image_range": image_range}))
    run.model.eval()
    images = VALIDATION[:3] / 255
    wanted = float(jacobians(run, images).square().sum().detach() / 3)
    inputs = run.model.to_own_range(images).repeat(2000, 1, 1, 1).requires_grad_()
    directions = torch.randn(len(inputs), 6, generator=torch.Generator().manual_seed(0))
    found = contractive_penalty(run.model.encoder(inputs), inputs, directions)
    # One estimate's deviation is at most sqrt(2) of the norm: 2% for the mean of 6000.
    assert float(found.detach()) == pytest.approx(wanted, rel=0.06)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", [{}, {"downsample": "pool", "channels": (8, 16)}])
def test_contraction_makes_the_jacobian_smaller(
    model: dict[str, Any], precision: Precision
) -> None:
    def trained(regularizer: str) -> Trainer:
        trial = params(model, regularizer=regularizer, contractive_weight=0.1, epochs=6)
        run = trainer(trial, precision=precision)
        list(run.epochs())
        return run

    assert squared_norm(trained("contractive")) < 0.5 * squared_norm(trained("none"))


def test_a_penalty_of_weight_0_is_none() -> None:
    weightless = trainer(params(regularizer="clip+contractive", contractive_weight=0.0))
    clipped = trainer(params(regularizer="clip"))
    assert [r.psnr_db for r in weightless.epochs()] == [r.psnr_db for r in clipped.epochs()]


# -- k-sparse latents


def test_a_k_sparse_net_has_so_many_latents_in_training_validation_and_after() -> None:
    seen: list[int] = []
    run = trainer(params(regularizer="clip+k-sparse", active_latents=1, epochs=3))
    run.model.decoder.register_forward_pre_hook(
        lambda _, latents: seen.append(int(latents[0].count_nonzero(1).max()))
    )
    run._eager.forward._body.register_forward_pre_hook(
        lambda _, latents: seen.append(int(latents[0].count_nonzero(1).max()))
    )
    results = list(run.epochs())
    assert set(seen) == {1}
    assert all(r.sparsity >= 0.75 for r in results), "of four latents"
    latents = run.model.encode(VALIDATION / 255)
    assert (latents.count_nonzero(1) == 1).all()
    assert len({r.psnr_db for r in results}) == 3, "it learns"


def test_more_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(ModelError, match=r"train.active_latents: 5 .* since it has only 4"):
        trainer(params(regularizer="k-sparse", active_latents=5))
    trainer(params(regularizer="clip", active_latents=5))  # it is not used
