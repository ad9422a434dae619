"""Training as a generator of epochs, which can be stopped, kept and taken up again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from searchae.config import TrialParams
from searchae.errors import DeadError, DivergedError, ModelError, SearchaeError
from searchae.models import Autoencoder, build_model
from searchae.training import kernels
from searchae.training.checkpoint import CheckpointError
from searchae.training.cuda_graph import RecordedStep, cuda_graph
from searchae.training.dead_units import can_be_judged, is_dead, least_constant_mse
from searchae.training.device_faults import device_errors
from searchae.training.early_stopping import Plateau
from searchae.training.epoch import EpochResult
from searchae.training.generators import named_generator, seeded_initialisation
from searchae.training.images import ResidentImages, check_images, gaussian
from searchae.training.memory_format import to_device
from searchae.training.metrics import Metrics, Pass, evaluate
from searchae.training.optimizers import make_optimizer
from searchae.training.precision import Precision
from searchae.training.regularizers import clip_, penalised_weights
from searchae.training.step import EagerStep, Step

logger = logging.getLogger(__name__)

_FORMAT = 2
_CHECK_STEPS = 50
_MAY_CHANGE = frozenset({"epochs", "patience", "min_delta_db"})


class Interrupted(SearchaeError):  # noqa: N818  # not a fault
    """``stop`` asked to end the training within an epoch: go on from the last checkpoint."""


class Trainer:
    """Trains one autoencoder.

    All randomness follows from the seed, so that on a CPU with a given number of threads a
    training replays to the bit, resumed or not. A last batch that is not full is trained on like
    the others; only under batch normalisation one of a single image is left out, since it has
    no variance.

    Attributes:
        model: The model, on the device. It is fit for use at the end of an epoch.
        history: The results so far, one an epoch.
    """

    model: Autoencoder
    history: list[EpochResult]

    def __init__(
        self,
        params: TrialParams,
        *,
        train: Tensor,
        validation: Tensor,
        seed: int,
        device: torch.device,
        precision: Precision = "fp32",
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Builds the model, clips it, and puts everything on the device.

        Args:
            params: The trial.
            train: Training images, uint8 (N, C, H, W).
            validation: Validation images, uint8 (M, C, H, W).
            seed: Decides initialisation, order and noise.
            device: Where to train.
            precision: Of the training steps; evaluation is in float32 always.
            stop: Asked between two steps; when true, ``epochs`` raises ``Interrupted``.

        Raises:
            ModelError: The model does not fit the images.
            DataError: The images are not such tensors.
            OutOfMemoryError: They do not fit on the device.
        """
        check_images(train, split="training")
        check_images(validation, split="validation")
        _check_batches(params, images=len(train))
        self.history = []
        self._params, self._seed, self._device = params, seed, device
        self._stop = stop or (lambda: False)
        self._whole = True
        self._silent = ""
        with device_errors("building the model"):
            self.model = self._build(train)
            layout = to_device(self.model, device)
            last = layout is torch.channels_last
            self._images = ResidentImages.on(device, train, channels_last=last)
            self._validation = validation.to(device, memory_format=layout)
            self._optimizer = make_optimizer(params.train, self.model.parameters(), device=device)
            # They want channels last too.
            compiled = kernels.chosen_kernels(device, precision) if last else None
            eager = EagerStep(
                self.model,
                self._optimizer,
                images=self._images,
                params=params.train,
                precision=precision,
                compiled=compiled,
            )
            self._quick = eager.forward if compiled is not None else None
            self._step: Step = eager
            if device.type == "cuda":
                batch_size = min(params.train.batch_size, len(train))
                record = partial(cuda_graph, device=device)
                self._step = RecordedStep(eager, batch_size=batch_size, record=record)

    def epochs(self) -> Iterator[EpochResult]:
        """Trains, one epoch at a time, from where the history ends.

        Yields:
            Each epoch's result, until ``train.epochs`` or the plateau is reached.

        Raises:
            Interrupted: ``stop`` said so; the epoch is lost.
            DivergedError: Loss, PSNR or a weight is no longer finite, or the net is dead.
            OutOfMemoryError: The device's memory is full.
        """
        while not self.done:
            self._check_whole()
            yield self._epoch(len(self.history) + 1)

    @property
    def done(self) -> bool:
        """Whether ``train.epochs`` or the plateau is reached."""
        return len(self.history) >= self._params.train.epochs or self._plateau().reached

    def state(self) -> dict[str, Any]:
        """Everything needed to go on: copies on the CPU, tensors and plain values only.

        Raises:
            SearchaeError: An epoch was broken off, so that there is no sound state.
        """
        self._check_whole()
        # The plateau follows from the history, the epoch is its length.
        return {
            "format": _FORMAT,
            "seed": self._seed,
            "params": self._identity(),
            "model": _copied(self.model.state_dict()),
            "optimizer": _copied(self._optimizer.state()),
            "history": [asdict(result) for result in self.history],
            "silent": self._silent,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a training where ``state`` left it.

        Args:
            state: From ``state`` of a trainer with the same seed, parameters and images; only
                ``epochs`` and the plateau rule may differ.

        Raises:
            CheckpointError: It is of another format, seed or trial.
        """
        self._check_same(state)
        self.model.load_state_dict(state["model"])
        self._optimizer.restore(state["optimizer"])
        self.history = [EpochResult(**result) for result in state["history"]]
        self._silent = state["silent"]
        self._whole = True

    def _build(self, train: Tensor) -> Autoencoder:
        channels, height, width = train.shape[1:]
        with seeded_initialisation(self._seed):
            model = build_model(self._params.model, image_shape=(channels, height, width))
        if self._params.train.clips:
            clip_(penalised_weights(model), self._params.train.clip)
        return model

    def _epoch(self, number: int) -> EpochResult:
        started = time.perf_counter()
        self._whole = False
        with device_errors(f"epoch {number}"):
            train_mse = self._train(number)
            metrics = self._evaluate(number)
        result = EpochResult(
            epoch=number,
            train_mse=train_mse,
            val_mse=metrics.mse,
            psnr_db=metrics.psnr_db,
            psnr_of_mse_db=metrics.psnr_of_mse_db,
            sparsity=metrics.sparsity,
            seconds=time.perf_counter() - started,
        )
        self._check_finite(result)
        self._check_alive(result)
        self.history.append(result)
        self._whole = True
        return result

    def _train(self, epoch: int) -> float:
        """One pass over the training images; the mean squared error on the [0, 1] scale."""
        self.model.train()
        noise = named_generator(self._seed, "noise", epoch=epoch)
        total = torch.zeros((), device=self._device)
        seen = 0
        for i, indices in enumerate(self._batches(epoch)):
            if self._stop():
                raise Interrupted(f"stopped within epoch {epoch}: go on from the last checkpoint")
            mse = self._step(indices, noise=self._noise(len(indices), noise, epoch))
            total += mse * len(indices)
            seen += len(indices)
            # On the CPU a look at the loss costs nothing; elsewhere it would wait for the device.
            if self._device.type == "cpu" and i % _CHECK_STEPS == 0 and not math.isfinite(mse):
                raise self._diverged(f"the loss is {float(mse)} in epoch {epoch}, step {i + 1}")
        return float(total) / seen / (4 if self.model.symmetric else 1)

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        order = named_generator(self._seed, "order", epoch=epoch)
        indices = torch.randperm(len(self._images), generator=order).to(self._device)
        batches = torch.split(indices, self._params.train.batch_size)
        alone = self._params.model.batch_norm and len(batches[-1]) == 1
        return batches[:-1] if alone else batches

    def _noise(self, images: int, draws: torch.Generator, epoch: int) -> Tensor | None:
        std = self._params.train.noise_std
        if not std or epoch < self._params.train.noise_from_epoch:
            return None
        return gaussian((images, *self.model.image_shape), std, draws).to(self._device)

    def _evaluate(self, epoch: int) -> Metrics:
        """Compiled kernels measure on the way; the last epoch is the plain model's own."""
        if self._quick is None or epoch >= self._params.train.epochs:
            return self._measure(None)
        metrics = self._measure(self._quick)
        return self._measure(None) if self._plateau(metrics.psnr_db).reached else metrics

    def _measure(self, forward: Pass | None) -> Metrics:
        return evaluate(
            self.model,
            self._validation,
            noise_std=self._params.train.noise_std,
            seed=self._seed,
            sparsity_of=self._params.train.l1_target,
            forward=forward,
        )

    def _plateau(self, *further_db: float) -> Plateau:
        train = self._params.train
        rule = Plateau(patience=train.patience, min_delta_db=train.min_delta_db)
        psnrs_db = [*(result.psnr_db for result in self.history), *further_db]
        # An epoch on clean input says nothing of whether the denoising has stabilised.
        return rule.after_all(psnrs_db[train.noise_from_epoch - 1 :])

    def _check_finite(self, result: EpochResult) -> None:
        for name in ("train_mse", "psnr_db"):
            value = getattr(result, name)
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value} after epoch {result.epoch}")
        # An infinite weight can hide behind a ReLU.
        tensors = [t for t in self.model.state_dict().values() if t.is_floating_point()]
        # A sum is finite only if all that it adds is, and is there in a fraction of the time.
        if torch.stack([t.sum() for t in tensors]).isfinite().all():
            return
        if not torch.stack([t.isfinite().all() for t in tensors]).all():
            raise self._diverged(f"a weight is not finite after epoch {result.epoch}")

    def _check_alive(self, result: EpochResult) -> None:
        if not can_be_judged(self._params):
            return
        before, self._silent = self._silent, ""
        with device_errors(f"epoch {result.epoch}"):
            if result.val_mse < self._constant_mse:
                return  # so it does not give the same for every validation image
            self._silent = is_dead(self.model, self._images)
        if self._silent and self._silent == before:
            raise DeadError(
                f"the net is dead in epoch {result.epoch}: a layer gives the same for every "
                "image, with no gradient that could change it (activation = "
                f"{self._params.model.activation}, learning_rate = "
                f"{self._params.train.learning_rate}): lower the learning rate, or choose another "
                "activation"
            )

    @cached_property
    def _constant_mse(self) -> float:
        """No output that is the same for every validation image comes below this; rounded down."""
        return 0.9999 * least_constant_mse(self._validation)

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"training diverged: {what} (learning_rate = {self._params.train.learning_rate}, "
            f"optimizer = {self._params.train.optimizer}): lower the learning rate, or clip"
        )

    def _check_whole(self) -> None:
        if not self._whole:
            raise SearchaeError(
                f"epoch {len(self.history) + 1} was broken off, and the weights are half-way "
                "through it: restore the last checkpoint in a new trainer"
            )

    def _identity(self) -> dict[str, Any]:
        """The parameters that decide the weights, as plain values."""
        return {
            "model": self._params.model.model_dump(mode="json"),
            "train": self._params.train.model_dump(mode="json", exclude=set(_MAY_CHANGE)),
        }

    def _check_same(self, state: Mapping[str, Any]) -> None:
        if state.get("format") != _FORMAT:
            raise CheckpointError(
                f"checkpoint: format {state.get('format')!r}, expected {_FORMAT}: it is of another "
                "version of searchae; start the trial over"
            )
        here = {"seed": self._seed, "params": self._identity()}
        for key, value in here.items():
            if state[key] != value:
                raise CheckpointError(
                    f"checkpoint: {key} = {state[key]!r}, but this trial has {value!r}"
                )


def _check_batches(params: TrialParams, *, images: int) -> None:
    if params.model.batch_norm and min(images, params.train.batch_size) == 1:
        raise ModelError(
            "model.batch_norm: needs batches of at least 2 images, not "
            f"train.batch_size = {params.train.batch_size} of {images} training images"
        )


def _copied(value: Any) -> Any:
    """A copy that further training does not change, tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copied(v) for v in value]
    return value
