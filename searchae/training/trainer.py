"""The training loop, as a generator of epochs that can be stopped, saved and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from searchae.config import TrainParams, TrialParams, training_seed
from searchae.errors import ModelError, SearchaeError
from searchae.models import Autoencoder, build_model
from searchae.training import kernels
from searchae.training.checkpoint import CheckpointError
from searchae.training.cuda_graph import RecordedStep, cuda_graph
from searchae.training.dead_units import DeadNetDetector
from searchae.training.device_faults import device_errors
from searchae.training.divergence import check_finite, diverged
from searchae.training.draws import EpochDraws
from searchae.training.early_stopping import LEARNED_DB, Plateau
from searchae.training.epoch import EpochProgress, EpochResult
from searchae.training.generators import named_generator, seeded_initialisation
from searchae.training.images import ResidentImages, check_images
from searchae.training.memory_format import to_device
from searchae.training.metrics import (
    ForwardPass,
    Metrics,
    evaluation_mode,
    mean_image_psnr_db,
)
from searchae.training.optimizers import make_optimizer
from searchae.training.precision import Precision
from searchae.training.regularizers import clip_, penalised_weights
from searchae.training.schedule import learning_rate
from searchae.training.step import EagerStep, Step
from searchae.training.trainer_state import (
    FORMAT_WITHIN,
    MALFORMED,
    check_restored,
    check_resumable,
    copy_to_cpu,
    restored_history,
    state_header,
)
from searchae.training.validation_images import ValidationImages
from searchae.training.variational import divergence_weight

_CHECK_STEPS = 50  # steps from one check of the loss to the next


class Interrupted(SearchaeError):  # noqa: N818  # not a fault
    """``stop`` ended the training within an epoch; resume it from the last checkpoint."""


class Trainer:
    """Trains one autoencoder.

    All randomness follows from the seed: on a CPU with a given number of threads, two trainings
    give the same weights to the bit, whether or not they were interrupted and resumed. The last
    batch of an epoch may be smaller than the others. It is left out if it has a single image and
    the net has batch normalisation, since one image has no variance.

    Attributes:
        model: The model, on the device. Between two results it can be used.
        history: The results so far, one for each epoch.
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
        shares: Sequence[float] = (),
    ) -> None:
        """Builds the model, clips its weights, and moves model and images to the device.

        Args:
            params: The trial.
            train: Training images, uint8 or uint16 (N, C, H, W).
            validation: Validation images, uint8 or uint16 (M, C, H, W).
            seed: Decides initialisation, order of the images, and noise.
            device: The device to train on.
            precision: Of the training steps; evaluation is always in float32.
            stop: Called before each step; ``epochs`` raises ``Interrupted`` once it returns true.
            shares: Shares of the first epoch, ascending and between 0 and 1, after which
                ``results`` measures the net as well.

        Raises:
            ModelError: The model does not fit the images.
            DataError: The images have another type or shape, or there are none.
            OutOfMemoryError: Model and images do not fit into the device's memory.
            DeviceError: The device failed.
        """
        check_images(train, split="training")
        check_images(validation, split="validation")
        self.history = []
        self._learned_db = -math.inf
        if params.train.patience:
            self._learned_db = mean_image_psnr_db(train, validation) + LEARNED_DB
        self._params, self._seed, self._device = params, seed, device
        self._stop = stop or (lambda: False)
        self._shares = tuple(shares)
        self._is_consistent = True
        self._progress: EpochProgress | None = None
        with device_errors("building the model"):
            self.model = self._build(train)
            _check_batches(self.model, params.train, images=len(train))
            layout = to_device(self.model, device)
            self._check_own_net()
            last = layout is torch.channels_last
            self._images = ResidentImages.on(device, train, channels_last=last)
            self._validation = ValidationImages(
                validation,
                params.train,
                seed=seed,
                device=device,
                layout=layout,
                first=round(self._shares[0] * len(train)) if self._shares else None,
            )
            self._optimizer = make_optimizer(params.train, self.model.parameters(), device=device)
            self._step, self._compiled_forward = self._make_step(precision)
        self._dead_net = DeadNetDetector(
            params, model=self.model, train=self._images, validation=self._validation.images
        )

    def epochs(self) -> Iterator[EpochResult]:
        """Trains, one epoch at a time, from where the history ends.

        Yields:
            Each epoch's result, until ``train.epochs`` or the plateau is reached.

        Raises:
            Interrupted: ``stop`` returned true; the unfinished epoch is lost.
            DivergedError: Loss, PSNR or a weight is NaN or infinite, or the net is dead.
            OutOfMemoryError: The device's memory is full.
            DeviceError: The device failed.
            SearchaeError: An epoch was interrupted before, which leaves the weights undefined.
        """
        return (result for result in self.results() if result.share == 1)

    def results(self) -> Iterator[EpochResult]:
        """Trains like ``epochs``, and yields what was measured within the first epoch too.

        Measuring does not change the training. Between two results the training can be saved, and
        resumed in another trainer.
        """
        while not self.done:
            self._check_consistent()
            yield from self._epoch(len(self.history) + 1)

    @property
    def reported(self) -> list[EpochResult]:
        """The results so far; those within an epoch only until it has ended."""
        return [*self.history, *(self._progress.results if self._progress else ())]

    @property
    def unfinished_s(self) -> float:
        """Seconds that an epoch has taken that has been begun, but not ended."""
        return self._progress.seconds if self._progress else 0.0

    @property
    def done(self) -> bool:
        """Whether ``train.epochs`` or the plateau is reached."""
        return len(self.history) >= self._params.train.epochs or self._plateau().reached

    def state(self) -> dict[str, Any]:
        """Returns everything needed to resume, as copies on the CPU.

        Returns:
            Tensors and plain values only.

        Raises:
            SearchaeError: An epoch was interrupted, which leaves the weights undefined.
            OutOfMemoryError: The memory is full.
            DeviceError: The device failed.
        """
        self._check_consistent()
        with device_errors("copying the weights"):
            model = copy_to_cpu(self.model.state_dict())
            optimizer = copy_to_cpu(self._optimizer.state())
            within = None if self._progress is None else self._progress.state()
        # The number of the epoch and the plateau follow from the history.
        return {
            **state_header(self._params, self._seed),
            "model": model,
            "optimizer": optimizer,
            "history": [_row(result) for result in self.history],
            "silent": self._dead_net.dead_layer,
            **({} if within is None else {"format": FORMAT_WITHIN, "within": within}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resumes a training from a state.

        Args:
            state: What ``state`` returned in a trainer with the same seed, parameters and images;
                only ``epochs`` and the plateau rule may differ.

        Raises:
            CheckpointError: It has another format, seed or parameters, or does not hold what a
                state holds. The trainer cannot be used after that.
            OutOfMemoryError: The memory is full.
            DeviceError: The device failed; the state may be sound.
        """
        check_resumable(state, self._params, self._seed)
        self._is_consistent = False
        try:
            with device_errors("resuming"):
                self.model.load_state_dict(state["model"])
                self._optimizer.restore(state["optimizer"])
                self.history = restored_history(state["history"])
                self._dead_net.dead_layer = state["silent"]
                check_restored(self.model, self.history, self._params)
                self._restore_progress(state.get("within"))
        except MALFORMED as e:
            raise CheckpointError(f"checkpoint: does not fit this training: {e}") from e
        self._is_consistent = True

    def _restore_progress(self, within: Mapping[str, Any] | None) -> None:
        self._progress = None
        if within is not None:
            progress = self._begin(epoch := len(self.history) + 1)
            progress.restore(within)
            count = len(self._batches(epoch))
            stops = {steps for share, steps in self._stops(epoch, count) if share < 1}
            if progress.steps not in stops:
                raise ValueError(f"step {progress.steps} of epoch {epoch} is none to measure after")
            self._progress = progress

    def _build(self, train: Tensor) -> Autoencoder:
        channels, height, width = train.shape[1:]
        with seeded_initialisation(self._seed):
            model = build_model(
                self._params.model,
                image_shape=(channels, height, width),
                active_latents=self._params.train.k_sparse,
            )
        if self._params.train.clips:
            clip_(penalised_weights(model), self._params.train.clip)
        return model

    def _check_own_net(self) -> None:
        """Checks a net of one's own on its device, and that what is asked of it makes sense.

        Raises:
            ModelError: It fails there, or the regularizer acts on a latent that it has not.
        """
        if not self.model.has_latent and (refused := self._params.train.needs_latent):
            raise ModelError(refused)
        if self._params.model.kind == "python" and self._device.type != "cpu":
            images = torch.zeros(2, *self.model.image_shape, device=self._device)
            try:
                with evaluation_mode(self.model), torch.inference_mode():
                    self.model(images)
            except RuntimeError as e:
                raise ModelError(
                    f"model.factory: the net does not run on {self._device}: {e}"
                ) from e

    def _make_step(self, precision: Precision) -> tuple[Step, ForwardPass | None]:
        """Returns the training step, and its forward pass if that uses compiled kernels."""
        compiled = None
        if self._images.channels_last:  # as the kernels need it
            compiled = kernels.chosen_kernels(self._device, precision)
        self._eager = eager = EagerStep(
            self.model,
            self._optimizer,
            images=self._images,
            params=self._params.train,
            precision=precision,
            compiled=compiled,
        )
        # Of random modules a recorded step differs from a plain one, as any two steps do.
        if self._device.type != "cuda" or self._params.model.dropout:
            return eager, None if compiled is None else eager.forward
        batch_size = min(self._params.train.batch_size, len(self._images))
        record = partial(cuda_graph, device=self._device)
        return RecordedStep(eager, batch_size=batch_size, record=record), None

    def _epoch(self, number: int) -> Iterator[EpochResult]:
        """Trains an epoch, or the rest of one; yields the results within it and at its end."""
        with device_errors(f"epoch {number}"):
            if self._progress is None:
                self._progress = self._begin(number)
            batches = self._batches(number)
        progress = self._progress
        for share, steps in self._stops(number, len(batches)):
            if steps <= progress.steps:
                continue
            started, self._is_consistent = time.perf_counter(), False
            with device_errors(f"epoch {number}"):
                train_mse = self._train(number, progress, batches[progress.steps : steps])
                metrics = self._evaluate(number, share)
            progress.seconds += time.perf_counter() - started
            result = EpochResult(
                epoch=number,
                train_mse=train_mse,
                val_mse=metrics.mse,
                psnr_db=metrics.psnr_db,
                psnr_of_mse_db=metrics.psnr_of_mse_db,
                sparsity=metrics.sparsity,
                seconds=progress.seconds,
                share=share,
            )
            with device_errors(f"epoch {number}"):
                check_finite(self.model, result, self._params.train)
            if share == 1:
                self._dead_net.check(result)
                self.history.append(result)
                self._progress = None
            else:
                progress.results.append(result)
            self._is_consistent = True
            yield result

    def _begin(self, epoch: int) -> EpochProgress:
        draws = EpochDraws(
            self._params, self.model, seed=self._seed, epoch=epoch, device=self._device
        )
        return EpochProgress(draws, torch.zeros((), device=self._device))

    def _stops(self, epoch: int, steps: int) -> list[tuple[float, int]]:
        """Returns the shares of an epoch of so many steps after which the net is measured.

        Each with the steps until then.
        """
        parts = [(share, max(1, round(share * steps))) for share in self._shares if epoch == 1]
        return [*((share, count) for share, count in parts if count < steps), (1.0, steps)]

    def _train(self, epoch: int, progress: EpochProgress, batches: Sequence[Tensor]) -> float:
        """Trains on the next batches of an epoch.

        Returns:
            The mean squared error over its batches so far, for values in [0, 1].
        """
        self.model.train()
        train, on_cpu = self._params.train, self._device.type == "cpu"
        self._optimizer.learning_rate = learning_rate(train, epoch, self._counted_psnrs_db())
        self._eager.divergence_weight = divergence_weight(train, epoch)
        # Modules draw from torch's own generators.
        modules_draw = self._params.model.kind == "python" or self._params.model.dropout > 0
        if modules_draw and progress.steps:
            progress.restore_generators(self._device)
        elif modules_draw:
            torch.manual_seed(training_seed(self._seed, "net", epoch=epoch))
        for indices in batches:
            if self._stop():
                raise Interrupted(f"stopped within epoch {epoch}: go on from the last checkpoint")
            mse = self._step(indices, progress.draws.step(len(indices)))
            progress.total += mse * len(indices)
            progress.images += len(indices)
            # Only on the CPU: elsewhere reading the loss would wait for the device.
            if on_cpu and progress.steps % _CHECK_STEPS == 0 and not math.isfinite(mse):
                loss = f"the loss is {float(mse)} in epoch {epoch}, step {progress.steps + 1}"
                raise diverged(self._params.train, loss)
            progress.steps += 1
        if modules_draw:
            progress.keep_generators(self._device)
        # In [-1, 1] squared errors are four times as large.
        return float(progress.total) / progress.images / (4 if self.model.symmetric else 1)

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Returns the indices of each batch's images, int64, on the device."""
        order = named_generator(self._seed, "order", epoch=epoch)
        indices = torch.randperm(len(self._images), generator=order).to(self._device)
        batches = torch.split(indices, self._params.train.batch_size)
        alone = _has_batch_norm(self.model) and len(batches[-1]) == 1
        return batches[:-1] if alone else batches

    def _evaluate(self, epoch: int, share: float) -> Metrics:
        """Measures on the validation images: with compiled kernels, but in the last epoch without.

        The value of a complete training is thereby the plain model's, on every machine.
        """
        validation, forward = self._validation, self._compiled_forward
        if share < 1:
            return validation.measure(self.model, forward, only_sample=True)
        if forward is None or epoch >= self._params.train.epochs:
            return validation.measure(self.model)
        metrics = validation.measure(self.model, forward)
        has_ended = self._plateau(metrics.psnr_db).reached
        return validation.measure(self.model) if has_ended else metrics

    def _plateau(self, *further_db: float) -> Plateau:
        """Returns the early-stopping rule after the history and further PSNRs, in dB."""
        train = self._params.train
        rule = Plateau(train.patience, train.min_delta_db, counts_from_db=self._learned_db)
        return rule.after_all(self._counted_psnrs_db(*further_db))

    def _counted_psnrs_db(self, *further_db: float) -> list[float]:
        """Returns those PSNRs of the history and of further epochs that count for a plateau.

        Epochs on clean input say nothing about whether denoising has stopped improving.
        """
        psnrs_db = [*(result.psnr_db for result in self.history), *further_db]
        return psnrs_db[self._params.train.noise_from_epoch - 1 :]

    def _check_consistent(self) -> None:
        if not self._is_consistent:
            raise SearchaeError(
                f"epoch {len(self.history) + 1} was broken off, and the weights are half-way "
                "through it: restore the last checkpoint in a new trainer"
            )


def _row(result: EpochResult) -> dict[str, Any]:
    """Returns the result of a whole epoch as a state has it."""
    row = asdict(result)
    del row["share"]
    return row


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _check_batches(model: nn.Module, train: TrainParams, *, images: int) -> None:
    if _has_batch_norm(model) and min(images, train.batch_size) == 1:
        raise ModelError(
            "model.batch_norm: needs batches of at least 2 images, not "
            f"train.batch_size = {train.batch_size} of {images} training images"
        )
