"""Trainings that cannot start, diverge, or run out of memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from searchae.errors import (
    DataError,
    DeviceError,
    DivergedError,
    ModelError,
    OutOfMemoryError,
    SearchaeError,
)
from searchae.training import trainer as trainer_module
from tests.unit.tiny_training import TRAIN, VALIDATION, params, smooth_images, trainer


@pytest.mark.parametrize(("images", "batch_size"), [(1, 16), (90, 1)])
def test_batch_normalisation_refuses_batches_of_one(images: int, batch_size: int) -> None:
    with pytest.raises(ModelError, match=r"at least 2 images"):
        trainer(params({"batch_norm": True}, batch_size=batch_size), train=TRAIN[:images])


def test_a_training_that_diverges_says_so_and_hands_out_no_state() -> None:
    run = trainer(
        params({"output": "none"}, optimizer="sgd", learning_rate=1e6, regularizer="none")
    )
    with pytest.raises(DivergedError, match=r"diverged.*learning_rate = 1000000\.0.*lower"):
        list(run.epochs())
    with pytest.raises(SearchaeError, match="broken off"):
        run.state()


def test_an_infinite_weight_behind_a_relu_is_found() -> None:
    run = trainer(params(regularizer="none", optimizer="sgd"))
    with torch.no_grad():
        run.model.encoder[0].get_parameter("bias")[0] = -math.inf
    with pytest.raises(DivergedError):
        list(run.epochs())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA ran out of memory outside PyTorch's allocator."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory_running_out_in_a_step_is_translated(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = trainer(params())

    def full(*_args: Tensor, **_options: Tensor | None) -> Tensor:
        raise error

    monkeypatch.setattr(run, "_step", full)
    with pytest.raises(OutOfMemoryError, match=r"epoch 1: out of memory.*lower train\.batch_size"):
        list(run.epochs())


def test_a_model_larger_than_any_memory_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemoryError, match="building the model"):
        trainer(params({"latent_dim": 2**31 - 1}))


@pytest.mark.parametrize(
    "text", ["CUDA error: unspecified launch failure", "cuDNN error: CUDNN_STATUS_MAPPING_ERROR"]
)
def test_a_broken_device_is_told_from_a_bug(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    run = trainer(params())

    def broken(*_args: Tensor, **_options: Tensor | None) -> Tensor:
        raise RuntimeError(text + "\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(run, "_step", broken)
    with pytest.raises(DeviceError, match=rf"epoch 1: the device failed \({text}\)$"):
        list(run.epochs())


def broken_device(*_args: Any, **_options: Any) -> None:
    raise RuntimeError("CUDA error: unspecified launch failure")


def test_a_device_that_breaks_while_a_training_resumes_says_nothing_about_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = trainer(params()), trainer(params())
    next(first.epochs())
    monkeypatch.setattr(second.model, "load_state_dict", broken_device)
    with pytest.raises(DeviceError, match="resuming: the device failed"):
        second.restore(first.state())


@pytest.mark.parametrize(
    ("function", "doing"), [("copy_to_cpu", "copying the weights"), ("check_finite", "epoch 1")]
)
def test_a_device_may_break_after_the_last_step_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch, function: str, doing: str
) -> None:
    run = trainer(params())
    monkeypatch.setattr(trainer_module, function, broken_device)
    with pytest.raises(DeviceError, match=f"{doing}: the device failed"):
        [run.state() for _ in run.epochs()]


@pytest.mark.parametrize("text", ["a bug", "CUDA error: device-side assert triggered"])
def test_other_runtime_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    run = trainer(params())

    def broken(*_args: Tensor, **_options: Tensor | None) -> Tensor:
        raise RuntimeError(text)

    monkeypatch.setattr(run, "_step", broken)
    with pytest.raises(RuntimeError, match=text):
        list(run.epochs())


def test_a_model_that_does_not_fit_the_images_is_refused() -> None:
    with pytest.raises(ModelError, match="multiples of"):
        trainer(params({"downsample": "pool"}), train=smooth_images(5, side=9))


def test_what_are_no_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"validation images.*torch\.float32"):
        trainer(params(), validation=VALIDATION / 255)
    with pytest.raises(DataError, match="training images"):
        trainer(params(), train=TRAIN[:0])
