"""Clipping and L1: what they promise about weights and latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.modules.batchnorm import _BatchNorm

from searchae.errors import DivergedError
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
