"""Training on a GPU: recorded steps, what they cost, and what happens when they fail."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from searchae.config import (
    TrialParams,
    find_study_file,
    initial_params,
    load_study_file,
    midpoint_params,
    params_of_trial,
)
from searchae.config.schema import ModelParams, TrainParams
from searchae.errors import DeviceError, OutOfMemoryError
from searchae.training import evaluate, held_by_others, pick_device
from searchae.training.cuda_graph import RecordedStep, Run, cuda_graph
from searchae.training.draws import NO_DRAWS, StepDraws
from searchae.training.precision import Precision
from searchae.training.step import EagerStep
from searchae.training.trainer import Trainer
from tests.unit.test_training_recorded import MEAN_IMAGE_DB, TRAIN, VALIDATION
from tests.unit.tiny_training import smooth_images

pytestmark = pytest.mark.gpu

GPU, CPU = torch.device("cuda"), torch.device("cpu")
MIB = 2**20
STUDIES = {"pool-conv": (3, 32), "conv-bn": (1, 28), "dense": (1, 28), "gap-conv": (1, 28)}
STUDIES |= {"same-size": (3, 32), "svhn": (3, 32)}


def published(study: str, **train: Any) -> TrialParams:
    """The first trial of a study, with some settings of the training changed."""
    spec = load_study_file(find_study_file(study), environment={})
    # What the published trial leaves open, such as svhn's learning rate, is from the middle.
    params = params_of_trial(spec, {**midpoint_params(spec), **initial_params(spec, 0)})
    update = {"epochs": 2, "patience": 0, **train}
    return TrialParams(params.model, params.train.model_copy(update=update))


def trainer(
    params: TrialParams,
    *,
    device: torch.device = GPU,
    precision: Precision = "fp32",
    side: int = 32,
    channels: int = 3,
    images: int = 0,
) -> Trainer:
    """A trainer of four full batches and a smaller one, unless told otherwise."""
    count = images or 4 * params.train.batch_size + 7
    return Trainer(
        params,
        train=smooth_images(count, channels=channels, side=side),
        validation=smooth_images(50, channels=channels, side=side, seed=1),
        seed=3,
        device=device,
        precision=precision,
    )


def small(**train: Any) -> TrialParams:
    update = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3, **train}
    return TrialParams(ModelParams(channels=(8, 16), latent_dim=8), TrainParams(**update))


def eagerly(run: Trainer) -> Trainer:
    assert isinstance(run._step, RecordedStep)
    run._step = run._step._eager
    return run


def weights(run: Trainer) -> Tensor:
    return torch.cat([w.detach().double().flatten().cpu() for w in run.model.parameters()])


def assert_trained_alike(found: Trainer, wanted: Trainer, *, share: float = 0.2) -> None:
    """The weights have gone the same way, up to a share of the way."""
    start = weights(trainer_like(found))
    way = (weights(wanted) - start).norm()
    assert way > 0
    assert (weights(found) - weights(wanted)).norm() <= share * way


def trainer_like(run: Trainer) -> Trainer:
    """The same before its first step."""
    channels, side, _ = run.model.image_shape
    return trainer(run._params, channels=channels, side=side)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("study", STUDIES)
def test_recorded_steps_of_the_studies_train_as_eager_ones(
    study: str, precision: Precision, caplog: pytest.LogCaptureFixture
) -> None:
    channels, side = STUDIES[study]
    params = published(study, learning_rate=1e-3)
    about: dict[str, Any] = {"channels": channels, "side": side, "precision": precision}
    recorded, eager = trainer(params, **about), eagerly(trainer(params, **about))
    with caplog.at_level(logging.WARNING):
        curves = [[r.train_mse for r in run.epochs()] for run in (recorded, eager)]
    assert not caplog.records, "it was recorded, and the recording was found right"
    assert curves[0] == pytest.approx(curves[1], rel=0.05)
    assert_trained_alike(recorded, eager)


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
        {"optimizer": "rmsprop", "momentum": 0.5, "weight_decay": 1e-4},
        {"optimizer": "adamw", "weight_decay": 1e-2},
        {"optimizer": "nadam"},
        {"schedule": "cosine", "max_gradient_norm": 0.1},
        {"loss": "huber", "ssim_weight": 0.2},
        {"optimizer": "adam", "regularizer": "clip+l1", "l1_weight": 1e-3, "clip": 0.125},
        {"noise_std": 0.2, "noise_from_epoch": 2},
        {"regularizer": "clip+contractive", "contractive_weight": 1e-3},
        {"regularizer": "clip+k-sparse", "active_latents": 3},
        {"shift_pixels": 2, "flip": True, "brightness": 0.2},
    ],
)
def test_recorded_steps_of_each_optimizer_train_as_eager_ones(train: dict[str, Any]) -> None:
    params = small(**train)
    recorded, eager = trainer(params), eagerly(trainer(params))
    for run in (recorded, eager):
        assert len(list(run.epochs())) == 2
    assert_trained_alike(recorded, eager)
    if params.train.clips:
        bound = max(float(w.detach().abs().max()) for w in recorded.model.parameters())
        assert bound <= params.train.clip


def test_a_gpu_comes_to_the_psnr_of_a_cpu() -> None:
    params = TrialParams(
        ModelParams(channels=(8, 16), latent_dim=12, downsample="pool", activation="tanh"),
        TrainParams(epochs=3, batch_size=16, learning_rate=5e-3),
    )
    found = []
    for device in (GPU, CPU):
        run = Trainer(params, train=TRAIN, validation=VALIDATION, seed=7, device=device)
        found.append([r.psnr_db for r in run.epochs()])
    assert found[0] == pytest.approx(found[1], abs=0.3)
    assert found[0][-1] > MEAN_IMAGE_DB


def test_evaluation_agrees_with_the_cpu_whatever_is_evaluated_at_a_time() -> None:
    run = trainer(small())
    images = smooth_images(600, channels=3, side=32, seed=2)
    on_gpu = [evaluate(run.model, images, batch_size=b).psnr_db for b in (250, 600)]
    on_cpu = evaluate(run.model.to(CPU), images).psnr_db
    assert on_gpu == pytest.approx([on_cpu, on_cpu], abs=0.01)


@pytest.mark.parametrize("elsewhere", [GPU, CPU])
def test_a_state_goes_on_on_any_device(elsewhere: torch.device) -> None:
    params = small(epochs=4)
    whole, first = trainer(params), trainer(params)
    list(whole.epochs())
    epochs = first.epochs()
    next(epochs), next(epochs)
    second = trainer(params, device=elsewhere)
    second.restore(first.state())
    assert len(list(second.epochs())) == 2
    assert_trained_alike(second, whole)


# -- recordings that fail


class ReadingStep(EagerStep):
    """A step that no graph can hold: it reads the loss back."""

    def __call__(self, indices: Tensor, draws: StepDraws = NO_DRAWS) -> Tensor:
        mse = super().__call__(indices, draws)
        float(mse)
        return mse


def test_what_cannot_be_recorded_is_trained_eagerly_on_the_usual_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, plain = trainer(small()), eagerly(trainer(small()))
    assert isinstance(run._step, RecordedStep)
    run._step._eager.__class__ = ReadingStep
    with caplog.at_level(logging.WARNING):
        list(run.epochs())
    assert "could not be recorded" in caplog.text
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    list(plain.epochs())
    assert_trained_alike(run, plain)
    # The next trial of the same process is recorded again.
    caplog.clear()
    after = trainer(small())
    with caplog.at_level(logging.WARNING):
        list(after.epochs())
    assert not caplog.records
    assert_trained_alike(after, plain)


def test_a_warm_up_that_fails_has_ended_when_the_failure_is_told() -> None:
    values = torch.zeros(64 * MIB // 4, device=GPU)
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        for _ in range(200):
            values.add_(1)
        if len(calls) == 2:
            raise RuntimeError("no memory is left")

    with pytest.raises(RuntimeError, match="no memory is left"):
        cuda_graph(run, device=GPU)
    values.zero_()  # as the weights are restored
    torch.cuda.synchronize()
    assert int(values.count_nonzero()) == 0, "nothing of the warm-up came after"


def test_a_recording_is_made_on_the_device_of_its_tensors() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for index in (0, 1):
        device = torch.device("cuda", index)
        value = torch.zeros((), device=device)

        def run(value: Tensor = value) -> None:
            value.add_(1)

        replay: Run = cuda_graph(run, device=device)
        before = float(value)
        replay()
        assert float(value) == before + 1


# -- memory


def test_many_trials_in_one_process_hold_no_more_memory_than_a_few() -> None:
    held: list[int] = []
    for _ in range(24):
        list(trainer(small(epochs=1)).epochs())
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[-1] <= held[3] + 64 * MIB, f"MiB: {[h // MIB for h in held]}"


def test_too_little_memory_is_an_error_of_one_trial() -> None:
    total = torch.cuda.get_device_properties(GPU).total_memory
    large = TrialParams(ModelParams(channels=(256, 256), latent_dim=8), TrainParams(batch_size=256))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 128 * MIB) / total)
    try:
        with pytest.raises(OutOfMemoryError, match=r"lower train\.batch_size"):
            list(trainer(large, side=64).epochs())
        list(trainer(small()).epochs())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_devices_are_counted_and_measured() -> None:
    assert pick_device("auto") == GPU
    with pytest.raises(DeviceError, match="CUDA devices"):
        pick_device("cuda:99")
    torch.zeros(9, device=GPU)
    assert 0 <= held_by_others(GPU) < torch.cuda.get_device_properties(GPU).total_memory
