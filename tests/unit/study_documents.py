"""Valid study files at random, as parsed documents, for properties that hold for all of them."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from searchae.config.schema import Activation, Optimizer, Regularizer

_widths = st.lists(st.integers(1, 64), min_size=1, max_size=3)
_factor = st.floats(1e-6, 10, allow_subnormal=False)
_share = st.floats(0, 0.99, allow_subnormal=False)

_MODEL: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["conv", "dense"]),
    "channels": _widths,
    "kernel_size": st.integers(1, 15),
    "batch_norm": st.booleans(),
    "hidden": _widths,
    "latent_dim": st.integers(1, 256),
    "activation": st.sampled_from(get_args(Activation)),
    "output": st.sampled_from(["sigmoid", "tanh", "none"]),
    "variational": st.booleans(),
    "residual_blocks": st.integers(0, 3),
    "dropout": _share,
}
_TRAIN: dict[str, st.SearchStrategy[Any]] = {
    "batch_size": st.integers(1, 512),
    "optimizer": st.sampled_from(get_args(Optimizer)),
    "learning_rate": _factor,
    "momentum": _share,
    "regularizer": st.sampled_from(get_args(Regularizer)),
    "clip": _factor,
    "l1_weight": _factor,
    "contractive_weight": _factor,
    "active_latents": st.integers(1, 256),
    "noise_std": _share,
    "shift_pixels": st.integers(0, 8),
    "flip": st.booleans(),
    "brightness": _share,
    "loss": st.sampled_from(["mse", "l1", "huber"]),
    "huber_delta": _factor,
    "ssim_weight": _share,
    "schedule": st.sampled_from(["constant", "cosine", "step"]),
    "decay_epochs": st.integers(1, 50),
    "max_gradient_norm": _factor,
    "beta": _factor,
}
_RANGES = {"kernel_size", "latent_dim", "batch_size", "active_latents", "shift_pixels"} | {
    key for key, values in _TRAIN.items() if values in (_factor, _share)
}


@st.composite
def _ranges(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(values, min_size=2, max_size=2, unique=True)))
    entry = {"low": low, "high": high}
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "log" and low > 0:
        entry["log"] = True
    if kind == "step":
        parts = draw(st.integers(1, 5))
        entry["step"] = (high - low) / parts if isinstance(low, float) else parts
    return entry


def _choices(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.lists(values, min_size=1, max_size=4, unique_by=repr)
    return lists.map(lambda chosen: {"choices": chosen})


@st.composite
def _section(draw: st.DrawFn, keys: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    section = {}
    for key in draw(st.lists(st.sampled_from(sorted(keys)), unique=True, max_size=6)):
        kinds = [keys[key], _choices(keys[key])]
        section[key] = draw(st.one_of(kinds + [_ranges(keys[key])] * (key in _RANGES)))
    return section


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A study file without faults."""
    epochs = draw(st.integers(1, 50))
    model, train = draw(_section(_MODEL)), draw(_section(_TRAIN))
    if "variational" in model:
        train.pop("regularizer", None)  # some are not for such nets
    return {
        "description": draw(st.text(max_size=20)),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "data": {"name": draw(st.sampled_from(["svhn", "mnist", "cifar10"]))},
        "model": model,
        "train": {"epochs": epochs, "weight_decay": 0.01, **train},
        "search": {
            "trials": draw(st.integers(1, 1000)),
            "sampler": draw(st.sampled_from(["tpe", "random", "gp"])),
            "min_epochs": draw(st.integers(1, epochs)),
        },
    }
