"""Jobs of ``benchmarks.gpu``: limits of the machine, training steps, evaluation.

Every function gets the settings of its job and emits a record for each of its cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import speed_sides
from benchmarks.gpu_child import Emit, Settings, attempt
from benchmarks.gpu_plan import SIDES
from searchae.config import (
    TrialParams,
    find_study_file,
    initial_params,
    load_study_file,
    params_of_trial,
)
from searchae.models import Autoencoder, build_model
from searchae.training import Trainer, evaluate, to_device
from searchae.training.cuda_graph import RecordedStep

SHAPES = {"mnist": (1, 28, 28), "svhn": (3, 32, 32), "cifar10": (3, 32, 32)}
"""(C, H, W) of the images of a study's data set."""


def published(net: str, *, noise: bool = False) -> tuple[TrialParams, tuple[int, int, int]]:
    """Returns the first trial of a study, as it was published, and its images' (C, H, W).

    Args:
        net: The study.
        noise: Whether to train with noise from the first epoch on, where the study has some.
    """
    spec = load_study_file(find_study_file(net), environment={})
    params = params_of_trial(spec, initial_params(spec, 0))
    update: dict[str, Any] = {"epochs": 1_000_000, "patience": 0, "noise_from_epoch": 1}
    if not noise:
        update["noise_std"] = 0.0
    train = params.train.model_copy(update=update)
    return TrialParams(params.model, train), SHAPES[spec.data.name]


def random_images(images: int, shape: tuple[int, int, int]) -> Tensor:
    """Returns uint8 (N, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (images, *shape), generator=generator, dtype=torch.uint8)


# -- what the machine could do


def limits(settings: Settings, emit: Emit) -> None:
    """Emits the rates of a large copy, in GB/s, and of a large matrix product, in TFLOP/s."""
    for case in settings["cases"]:
        name, _, kind = case.partition(" ")
        call = getattr(speed_sides, name)
        attempt(emit, case, partial(_limit, call, {**settings, "kind": kind}))


def _limit(job: Callable[[Settings], Callable[[], dict[str, Any]]], settings: Settings) -> Any:
    return job(settings)()


# -- training steps


def steps(settings: Settings, emit: Emit) -> None:
    """Emits the speed of searchae's training of a net, in several ways."""
    for case in settings["cases"]:
        net, _, side = case.partition("/")
        attempt(emit, case, partial(_trained, settings, net, **SIDES[side]))


def _trained(
    settings: Settings,
    net: str,
    *,
    precision: Any = "fp32",
    recorded: bool = False,
    benchmark: bool = False,
    noise: bool = False,
) -> dict[str, Any]:
    torch.backends.cudnn.benchmark = benchmark
    params, shape = published(net, noise=noise)
    images = random_images(settings["images"], shape)
    device = torch.device(settings["device"])
    _forget_peak(device)
    trainer = Trainer(
        params,
        train=images,
        validation=images[:1],
        seed=0,
        device=device,
        precision=precision,
    )
    step = trainer._step
    if not recorded and isinstance(step, RecordedStep):
        trainer._step = step._eager
    if recorded and not isinstance(step, RecordedStep):  # a CPU: what is around the graph runs
        batch = params.train.batch_size
        trainer._step = RecordedStep(step, batch_size=batch, record=lambda run: run)  # type: ignore[arg-type]

    def train(epoch: int) -> None:
        trainer._train(epoch, trainer._begin(epoch), trainer._batches(epoch))

    figures = _timed(train, settings["seconds"], params=params, images=len(images))
    if recorded and not all(trainer._step._recordings.values()):  # type: ignore[attr-defined]
        figures["note"] = "could not be recorded"
    return {**figures, **_work(params, shape), **_peak(device)}


def _timed(
    train: Callable[[int], object], seconds: float, *, params: TrialParams, images: int
) -> dict[str, Any]:
    """Times whole epochs after two; each ends with the loss being read, which waits for a GPU."""
    first_s, second_s = (_seconds(partial(train, epoch)) for epoch in (1, 2))
    started = time.perf_counter()
    for epoch in count(3):
        train(epoch)
        took = time.perf_counter() - started
        if took >= seconds:
            break
    epochs, batch = epoch - 2, params.train.batch_size
    return {
        "images_per_s": epochs * images / took,
        "ms_a_step": 1000 * took / (epochs * -(-images // batch)),
        "batch": batch,
        "first_s": first_s - second_s,
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _work(params: TrialParams, shape: tuple[int, int, int]) -> dict[str, float]:
    """FLOP and bytes of training on one image; see ``work_per_image``."""
    model = build_model(params.model, image_shape=shape)
    flop, moved = speed_sides.work_per_image(model, shape)
    return {"flop": flop, "bytes": moved}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: torch.device) -> dict[str, float]:
    """The most memory that torch has reserved, in MiB."""
    return {"mib": torch.cuda.max_memory_reserved() / 2**20} if device.type == "cuda" else {}


# -- the user's loop


def loops(settings: Settings, emit: Emit) -> None:
    """Emits the speed of a DataLoader loop with the same net and settings.

    It is that of ``speed_user``: PIL images, ``ToTensor``, float32, torch's own optimizer,
    ``loss.item()`` in each step.
    """
    for case in settings["cases"]:
        net, _, side = case.partition("/")
        workers = min(SIDES[side]["loader_workers"], 1 if settings["quick"] else 99)
        attempt(emit, case, partial(_looped, settings, net, workers))


def _looped(settings: Settings, net: str, workers: int) -> dict[str, Any]:
    params, shape = published(net)
    device = torch.device(settings["device"])
    images = random_images(settings["images"], shape)
    _forget_peak(device)
    epochs = _loop(params, images, shape, device=device, workers=workers)
    figures = _timed(lambda _: next(epochs), settings["seconds"], params=params, images=len(images))
    return {**figures, **_work(params, shape), **_peak(device)}


def _loop(
    params: TrialParams,
    images: Tensor,
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    workers: int,
) -> Iterator[None]:
    from torch.utils.data import DataLoader

    from benchmarks.speed_user import Pictures

    model = build_model(params.model, image_shape=shape).to(device)
    train = params.train
    optimizer = torch.optim.Adam(
        model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
    )
    loader = DataLoader(
        Pictures(images.permute(0, 2, 3, 1).numpy()),
        batch_size=train.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=workers > 0 and device.type == "cuda",
        persistent_workers=workers > 0,
    )
    while True:
        total = 0.0
        for batch in loader:
            inputs = batch.to(device, non_blocking=True)
            loss = F.mse_loss(model(inputs), inputs)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        yield


# -- evaluation


def evaluation(settings: Settings, emit: Emit) -> None:
    """Emits the speed of evaluating images, so many at a time, and the change of the PSNR."""
    net = settings["cases"][0].partition("/")[0]
    params, shape = published(net)
    device = torch.device(settings["device"])
    model = build_model(params.model, image_shape=shape)
    layout = to_device(model, device)
    images = random_images(settings["images"], shape).to(device, memory_format=layout)
    base_db = evaluate(model, images).psnr_db
    for case in settings["cases"]:
        batch = int(case.rpartition("/")[2])
        attempt(emit, case, partial(_evaluated, settings, model, images, batch, base_db))


def _evaluated(
    settings: Settings, model: Autoencoder, images: Tensor, batch: int, base_db: float
) -> dict[str, Any]:
    _forget_peak(images.device)
    found = evaluate(model, images, batch_size=batch)
    started = time.perf_counter()
    for rounds in count(1):
        evaluate(model, images, batch_size=batch)
        took = time.perf_counter() - started
        rate = rounds * len(images) / took
        if took >= settings["seconds"]:
            break
    return {
        "images_per_s": rate,
        "difference_db": found.psnr_db - base_db,
        **_peak(images.device),
    }
