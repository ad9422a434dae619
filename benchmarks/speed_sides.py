"""Jobs of ``benchmarks.speed``: searchae's trainer, the user's loop, and what the machine could do.

Functions that take ``settings`` are for ``speed_base.together``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed_user import (
    BATCH,
    Net,
    Pixels,
    channels_first,
    user_epochs,
    user_psnr_db,
)

if TYPE_CHECKING:  # the process of the user's loop holds nothing of searchae
    from searchae.training.trainer import Trainer

Measure = Callable[[], dict[str, float]]
_FOREVER = 1_000_000

PARAMS: dict[str, dict[str, Any]] = {
    "pool-conv": {"downsample": "pool", "latent_activation": "same", "latent_dim": 64},
    "conv": {"channels": (16, 32, 64), "latent_dim": 16},
    "dense": {"kind": "dense", "hidden": (128, 64), "latent_dim": 32},
}
"""The nets of ``speed_user`` in searchae's words."""


def trainer(
    net: str, pixels: Pixels, validation: Pixels, *, seed: int, device: str, epochs: int
) -> Trainer:
    """A trainer as the worker of a search makes it."""
    from searchae.config.schema import ModelParams, TrainParams, TrialParams
    from searchae.training.precision import pick_precision
    from searchae.training.trainer import Trainer

    train = TrainParams(
        epochs=epochs, batch_size=BATCH, optimizer="adam", learning_rate=1e-3, clip=0.5
    )
    return Trainer(
        TrialParams(ModelParams(**PARAMS[net]), train),
        train=channels_first(pixels),
        validation=channels_first(validation),
        seed=seed,
        device=torch.device(device),
        precision=pick_precision("auto", torch.device(device)),
    )


# -- images a second


def user(settings: Mapping[str, Any]) -> Measure:
    """The user's loop on the images of a file, whole epochs, for so many seconds at least."""
    pixels = np.load(settings["images"])

    def train(pixels: Pixels) -> Iterator[Net]:
        return user_epochs(
            settings["net"],
            pixels,
            seed=0,
            device=settings["device"],
            resident=settings.get("resident", False),
        )

    model = next(train(_first_steps(pixels)))
    parameters = sum(p.numel() for p in model.parameters())
    return lambda: _timed(train, pixels, settings["seconds"]) | {"parameters": parameters}


def searchae(settings: Mapping[str, Any]) -> Measure:
    """The trainer, measured the same way; one image is all that it validates on."""
    pixels = np.load(settings["images"])

    def train(pixels: Pixels) -> Iterator[Any]:
        made = trainer(
            *(settings["net"], pixels, pixels[:1]),
            seed=0,
            device=settings["device"],
            epochs=_FOREVER,
        )
        for _ in made.epochs():
            yield made.model

    model = next(train(_first_steps(pixels)))
    parameters = sum(p.numel() for p in model.parameters())
    return lambda: _timed(train, pixels, settings["seconds"]) | {"parameters": parameters}


def _first_steps(pixels: Pixels) -> Pixels:
    """Images for two steps: a whole batch, and one as small as the last of an epoch."""
    return pixels[: BATCH + (len(pixels) % BATCH or BATCH)]


def _timed(
    train: Callable[[Pixels], Iterator[Any]], pixels: Pixels, seconds: float
) -> dict[str, float]:
    """Counts from before the net is built to the end of an epoch; each ends with a read-back."""
    started = time.perf_counter()
    trained = train(pixels)
    for epochs in count(1):
        next(trained)
        took = time.perf_counter() - started
        if took >= seconds:
            return {"images_per_s": epochs * len(pixels) / took}
    raise AssertionError("endless")


# -- quality


def user_quality(settings: Mapping[str, Any]) -> Measure:
    """The validation PSNR of the user's loop after so many epochs."""
    pixels, held_out = (np.load(settings[k]) for k in ("images", "validation"))

    def measure() -> dict[str, float]:
        options = {"seed": settings["seed"], "device": settings["device"]}
        epochs = user_epochs(settings["net"], pixels, **options)
        for _ in range(settings["epochs"]):
            model = next(epochs)
        return {"psnr_db": user_psnr_db(model, held_out, device=settings["device"])}

    return measure


def searchae_quality(settings: Mapping[str, Any]) -> Measure:
    """The same of searchae's trainer."""
    pixels, held_out = (np.load(settings[k]) for k in ("images", "validation"))

    def measure() -> dict[str, float]:
        made = trainer(
            *(settings["net"], pixels, held_out),
            seed=settings["seed"],
            device=settings["device"],
            epochs=settings["epochs"],
        )
        *_, last = made.epochs()
        return {"psnr_db": last.psnr_db}

    return measure


# -- what the machine could do


def matmul(settings: Mapping[str, Any]) -> Measure:
    """Products of square matrices in ``kind`` (``fp32``, ``tf32`` or ``bf16``), TFLOP/s."""
    device, kind = settings["device"], settings["kind"]
    side = 8192 if device == "cuda" else 2048
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = a @ b
    one = 2 * side**3 / 1e12
    return lambda: {"rate": one * _rate(lambda: torch.mm(a, b, out=out), settings)}


def copy(settings: Mapping[str, Any]) -> Measure:
    """A copy of 256 MiB, larger than caches, in GB/s: read once and written once."""
    source = torch.ones(64 * 2**20, device=settings["device"])
    target = source.clone()
    one = 2 * source.numel() * source.element_size() / 1e9
    return lambda: {"rate": one * _rate(lambda: target.copy_(source), settings)}


def _rate(call: Callable[[], object], settings: Mapping[str, Any]) -> float:
    """Calls a second."""
    on_gpu = settings["device"] == "cuda"
    burst = 10 if on_gpu else 1
    call()
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for bursts in count(1):
        for _ in range(burst):
            call()
        if on_gpu:
            torch.cuda.synchronize()
        took = time.perf_counter() - started
        if took >= settings["seconds"]:
            return bursts * burst / took
    raise AssertionError("endless")


def work_per_image(model: nn.Module, shape: tuple[int, int, int]) -> tuple[float, float]:
    """What training one image takes at least, by the net as it is written, in float32.

    Args:
        model: An autoencoder with the layers ``encoder`` and ``decoder``, on the CPU.
        shape: (C, H, W) of its images.

    Returns:
        FLOP of the products in the forward and backward passes; bytes if the output of each layer,
        and its gradient, were written once and read once.
    """
    from torch.utils.flop_counter import FlopCounterMode

    images, moved = torch.rand(16, *shape), 0

    def add(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal moved
        if not isinstance(layer, nn.Flatten | nn.Unflatten):  # views
            moved += 4 * output.numel() * output.element_size()

    for layer in [*model.get_submodule("encoder"), *model.get_submodule("decoder")]:  # type: ignore[misc]
        layer.register_forward_hook(add)
    with FlopCounterMode(display=False) as counter:
        F.mse_loss(model(images), images).backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() / len(images), moved / len(images)
