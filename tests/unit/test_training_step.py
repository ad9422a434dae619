"""The step against a plain one: torch.optim without fusing, NCHW memory, one clamp a weight."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.functional.image import structural_similarity_index_measure

from searchae.config.schema import ModelParams, TrainParams, TrialParams
from searchae.errors import DivergedError
from searchae.models.builder import build_model
from searchae.models.gaussian import GaussianLatent
from searchae.training.generators import named_generator, seeded_initialisation
from searchae.training.trainer import Trainer

CPU = torch.device("cpu")
SEED = 11
SGD = {"optimizer": "sgd", "learning_rate": 0.1}


def random_images(channels: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (20, channels, 8, 8), dtype=torch.uint8, generator=g)


def plain_optimizer(train: TrainParams, weights: list[Tensor]) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {
        "lr": train.learning_rate,
        "weight_decay": train.weight_decay,
        "foreach": False,
    }
    match train.optimizer:
        case "adam":
            return torch.optim.Adam(weights, **shared)
        case "adamw":
            return torch.optim.AdamW(weights, **shared)
        case "nadam":
            return torch.optim.NAdam(weights, **shared)
        case "rmsprop":
            return torch.optim.RMSprop(weights, momentum=train.momentum, **shared)
    return torch.optim.SGD(weights, momentum=train.momentum, **shared)


def plain_loss(train: TrainParams, own_range: str, made: Tensor, wanted: Tensor) -> Tensor:
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": F.mse_loss,
        "l1": F.l1_loss,
        "huber": partial(F.huber_loss, delta=train.huber_delta),
        "bce": F.binary_cross_entropy,
    }
    loss = losses[train.loss](made, wanted)
    if not train.ssim_weight:
        return loss
    if own_range == "symmetric":
        made, wanted = (made + 1) / 2, (wanted + 1) / 2
    similarity: Tensor = structural_similarity_index_measure(
        made, wanted, sigma=1.5, data_range=1.0, return_full_image=True
    )[1]
    return (1 - train.ssim_weight) * loss + train.ssim_weight * (1 - similarity.mean())


def plain_training(trial: TrialParams, images: Tensor) -> dict[str, Tensor]:
    """What the design says, in the plainest words."""
    train = trial.train
    with seeded_initialisation(SEED):
        _, channels, height, width = images.shape
        model = build_model(trial.model, image_shape=(channels, height, width)).train()
    norms = {
        parameter
        for module in model.modules()
        if isinstance(module, _BatchNorm | nn.GroupNorm)
        for parameter in module.parameters()
    }
    weights = [p for p in model.parameters() if p not in norms]
    for w in weights:
        w.data.clamp_(-train.clip, train.clip)
    optimizer = plain_optimizer(train, list(model.parameters()))
    for epoch in range(1, train.epochs + 1):
        noise = named_generator(SEED, "noise", epoch=epoch)
        draws = named_generator(SEED, "latent", epoch=epoch)
        directions = named_generator(SEED, "directions", epoch=epoch)
        order = torch.randperm(
            len(images), generator=named_generator(SEED, "order", epoch=epoch)
        ).tolist()
        for start in range(0, len(images), train.batch_size):
            clean = images[order[start : start + train.batch_size]] / 255
            noisy = clean
            if train.noise_std:
                noisy = clean + train.noise_std * torch.randn(clean.shape, generator=noise)
                noisy = torch.clamp(noisy, -1, 1)
            if trial.model.image_range == "symmetric":
                clean, noisy = clean * 2 - 1, noisy * 2 - 1
            noisy = noisy.clone().requires_grad_()
            latents = model.encoder(noisy)
            if "k-sparse" in train.regularizer:
                latents = latents * plain_mask(latents, train.active_latents)
            decoded = latents
            extra = torch.zeros(())
            if trial.model.variational:
                features = model.encoder[:-1](noisy)
                head = model.encoder[-1]
                assert isinstance(head, GaussianLatent)
                means, logs = head.mean(features), head.log_variance(features)
                latent = torch.distributions.Normal(means, torch.exp(logs / 2))
                standard = torch.distributions.Normal(0.0, 1.0)
                decoded = means + torch.exp(logs / 2) * torch.randn(means.shape, generator=draws)
                weight = train.beta * min(epoch / (train.beta_warmup_epochs + 1), 1)
                divergence = torch.distributions.kl_divergence(latent, standard).sum(1).mean()
                extra = weight * divergence / clean[0].numel()
            loss = extra + plain_loss(train, trial.model.image_range, model.decoder(decoded), clean)
            loss = loss + plain_penalty(train, weights, latents, noisy, directions)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if train.max_gradient_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_gradient_norm)
            optimizer.step()
            for w in weights:
                w.data.clamp_(-train.clip, train.clip)
    return model.state_dict()


def plain_mask(latents: Tensor, active: int) -> Tensor:
    mask = torch.zeros(latents.shape)
    for row, latent in zip(mask, latents.tolist(), strict=True):
        for index in sorted(range(len(latent)), key=lambda i: -abs(latent[i]))[:active]:
            row[index] = 1
    return mask


def plain_penalty(
    train: TrainParams,
    weights: Sequence[Tensor],
    latents: Tensor,
    inputs: Tensor,
    directions: torch.Generator,
) -> Tensor:
    if "l1" in train.regularizer:
        on_latents = train.l1_target == "latent"
        flat = latents if on_latents else torch.cat([w.flatten() for w in weights])
        return train.l1_weight * flat.abs().mean()
    if "contractive" in train.regularizer:
        products = plain_products(latents, inputs, torch.randn(latents.shape, generator=directions))
        return train.contractive_weight * products.square().flatten(1).sum(1).mean()
    return torch.zeros(())


def plain_products(latents: Tensor, inputs: Tensor, v: Tensor) -> Tensor:
    """v^T J, from the whole Jacobian, a row at a time."""
    products = torch.zeros(inputs.shape)
    for latent, factor in zip(latents.flatten(), v.flatten(), strict=True):
        (row,) = torch.autograd.grad(latent, inputs, create_graph=True)
        products = products + factor * row
    return products


def check_weights(trial: TrialParams, images: Tensor) -> None:
    """Trains on both sides, and compares the weights."""
    run = Trainer(trial, train=images, validation=images, seed=SEED, device=CPU)
    list(run.epochs())
    expected = plain_training(trial, images)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "adam", "weight_decay": 1e-2},
        {"optimizer": "adamw", "weight_decay": 1.0},
        {"optimizer": "nadam", "weight_decay": 1e-2},
        SGD,
        {**SGD, "momentum": 0.9, "weight_decay": 1e-2},
        {"optimizer": "rmsprop", "momentum": 0.9, "weight_decay": 1e-2},
        {**SGD, "regularizer": "clip+l1", "l1_weight": 0.1},
        {**SGD, "regularizer": "clip+l1", "l1_weight": 0.1, "l1_target": "weights"},
        {**SGD, "noise_std": 0.5},
        {**SGD, "loss": "l1", "max_gradient_norm": 0.02},
        {**SGD, "loss": "huber", "huber_delta": 0.2},
        {"loss": "mse", "ssim_weight": 0.3},
    ],
)
@pytest.mark.parametrize(
    "model",
    [
        {"batch_norm": True, "image_range": "symmetric", "output": "tanh"},
        {"downsample": "pool"},
        {"kernel_size": 1},
        {"kind": "dense", "hidden": (9,)},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_step_does_what_the_plain_one_does(
    model: dict[str, Any], train: dict[str, Any], channels: int
) -> None:
    # Tanh: at the kink of a ReLU a rounding error could become a different gradient.
    trial = TrialParams(
        ModelParams(**{"channels": (4, 6), "latent_dim": 3, "activation": "tanh", **model}),
        TrainParams(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "clip": 0.3, **train}),
    )
    check_weights(trial, random_images(channels))


@pytest.mark.parametrize("model", [{}, {"kind": "dense", "hidden": (9,)}])
@pytest.mark.parametrize(
    "train",
    [
        {},
        {"beta": 4.0, "beta_warmup_epochs": 1, "noise_std": 0.2},
        {"loss": "bce", "optimizer": "adam", "regularizer": "clip+l1", "l1_weight": 0.1},
    ],
)
def test_a_variational_net_is_trained_as_by_torch_s_distributions(
    model: dict[str, Any], train: dict[str, Any]
) -> None:
    trial = TrialParams(
        ModelParams(
            channels=(4, 6),
            latent_dim=3,
            activation="tanh",
            variational=True,
            **model,
        ),
        TrainParams(**{**SGD, "epochs": 2, "batch_size": 8, "learning_rate": 1e-2, **train}),
    )
    check_weights(trial, random_images(3))


@pytest.mark.parametrize(
    "model",
    [
        {"batch_norm": True, "image_range": "symmetric", "output": "tanh"},
        {"downsample": "pool"},
        {"residual_blocks": 1, "group_norm": 2},
        {"kind": "dense", "hidden": (9,)},
        {"variational": True},
    ],
)
@pytest.mark.parametrize("train", [{}, {"noise_std": 0.3, "optimizer": "adam"}])
def test_a_contractive_net_is_trained_as_by_its_whole_jacobian(
    model: dict[str, Any], train: dict[str, Any]
) -> None:
    trial = TrialParams(
        ModelParams(**{"channels": (4, 6), "latent_dim": 3, "activation": "tanh", **model}),
        TrainParams(
            **{
                **SGD,
                "epochs": 2,
                "batch_size": 8,
                "learning_rate": 1e-2,
                "regularizer": "clip+contractive",
                "contractive_weight": 0.1,
                **train,
            }
        ),
    )
    check_weights(trial, random_images(3))


@pytest.mark.parametrize(
    "model",
    [
        {"batch_norm": True, "image_range": "symmetric", "output": "tanh"},
        {"downsample": "pool", "latent_activation": "same"},
        {"kind": "dense", "hidden": (9,)},
        {"channels": (4, 2), "bottleneck": "none"},
    ],
)
@pytest.mark.parametrize("train", [{}, {"noise_std": 0.3, "optimizer": "adam"}])
def test_a_k_sparse_net_is_trained_on_its_largest_latents(
    model: dict[str, Any], train: dict[str, Any]
) -> None:
    about = {"regularizer": "clip+k-sparse", "active_latents": 2, "epochs": 2, "batch_size": 8}
    trial = TrialParams(
        ModelParams(**{"channels": (4, 6), "latent_dim": 5, "activation": "tanh", **model}),
        TrainParams(**{**SGD, "learning_rate": 1e-2, **about, **train}),
    )
    check_weights(trial, random_images(3))


def test_the_cross_entropy_is_torch_s() -> None:
    trial = TrialParams(
        ModelParams(channels=(4, 6), latent_dim=3, activation="tanh"),
        TrainParams(epochs=2, batch_size=8, learning_rate=1e-2, loss="bce"),
    )
    check_weights(trial, random_images(3))


@pytest.mark.parametrize("loss", ["l1", "huber", "bce"])
def test_the_history_has_the_mean_squared_error_whatever_the_loss(loss: str) -> None:
    images = random_images(3)
    trial = TrialParams(ModelParams(channels=(4,), latent_dim=3), TrainParams(loss=loss))
    run = Trainer(trial, train=images, validation=images, seed=SEED, device=CPU)
    with torch.no_grad():
        expected = F.mse_loss(run.model(images[:8] / 255), images[:8] / 255)
    torch.testing.assert_close(run._step(torch.arange(8)), expected)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber", "bce"])
def test_a_training_that_diverges_says_so_under_each_loss(loss: str) -> None:
    images = random_images(3)
    trial = TrialParams(
        ModelParams(channels=(4,), latent_dim=3, activation="tanh"),
        TrainParams(epochs=3, batch_size=4, learning_rate=1e38, regularizer="none", loss=loss),
    )
    run = Trainer(trial, train=images, validation=images, seed=SEED, device=CPU)
    with pytest.raises(DivergedError):
        list(run.epochs())


def test_gradients_are_not_carried_from_step_to_step() -> None:
    trial = TrialParams(ModelParams(channels=(4,), latent_dim=3), TrainParams(epochs=1))
    images = random_images(3)
    run = Trainer(trial, train=images, validation=images, seed=SEED, device=CPU)
    fresh = run.state()
    run._step(torch.arange(8))
    first = [w.detach().clone() for w in run.model.parameters()]
    run.restore(fresh)
    run._step(torch.arange(8))
    assert all(torch.equal(a, b) for a, b in zip(first, run.model.parameters(), strict=True))


def test_a_training_does_without_torch_s_compiler() -> None:
    """Its import takes seconds, in each worker; the classes of torch.optim bring it in."""
    code = """
import sys, torch
from searchae.config import ModelParams, TrainParams, TrialParams
from searchae.training import Trainer
images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
for name in ("adam", "adamw", "nadam", "rmsprop", "sgd"):
    train = TrainParams(epochs=1, optimizer=name, momentum=0.5, weight_decay=0.1)
    trial = TrialParams(ModelParams(channels=(2,), latent_dim=2), train)
    device = torch.device("cpu")
    list(Trainer(trial, train=images, validation=images, seed=0, device=device).epochs())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_step_s_loss_carries_no_gradient_and_no_penalty() -> None:
    images = random_images(3)
    trial = TrialParams(
        ModelParams(channels=(4,), latent_dim=3),
        TrainParams(regularizer="l1", l1_weight=100.0),
    )
    run = Trainer(trial, train=images, validation=images, seed=SEED, device=CPU)
    with torch.no_grad():
        expected = F.mse_loss(run.model(images[:8] / 255), images[:8] / 255)
    loss = run._step(torch.arange(8))
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected)
