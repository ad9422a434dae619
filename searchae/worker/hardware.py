"""What a worker trains on: its device, precision and images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from searchae.data import find_decoded, find_decoded_test
from searchae.study import StoredStudy, image_sums, load_images, package_versions
from searchae.training import Precision, kernels_of, pick_device, pick_precision
from searchae.worker.options import WorkerOptions


@dataclass(frozen=True)
class Machine:
    """What a worker trains on.

    Attributes:
        device: The device.
        threads: CPU threads.
        precision: Precision of the training steps, for trials that start here.
        images: Training and validation images, uint8 or uint16 (N, C, H, W), on the CPU.
        load_test: Returns the test images, which only listed trainings use.
    """

    device: torch.device
    threads: int
    precision: Precision
    images: tuple[Tensor, Tensor]
    load_test: Callable[[], Tensor]

    @classmethod
    def prepare(cls, stored: StoredStudy, options: WorkerOptions) -> Machine:
        """Picks the device and precision, builds the kernels, and loads the images.

        Args:
            stored: The study.
            options: What the worker was started with.

        Raises:
            DataError: The images here are not those that the study was created with.
            DeviceError: There is no such device.
            UserError: The precision or the wanted kernels cannot be used.
        """
        torch.set_num_threads(options.threads)
        device = pick_device(options.device)
        precision = pick_precision(options.precision, device)
        kernels_of(device, precision)  # builds them now, and fails now if they cannot be built
        images = _load_images(stored, options)
        load_test = cache(partial(_load_test_images, stored, options))
        return cls(device, options.threads, precision, images, load_test)

    @property
    def label(self) -> str:
        """The device for people: for ``cuda`` also which of the machine's GPUs is visible."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if self.device.type == "cuda" and self.device.index is None and visible:
            return f"cuda:{visible}"
        return str(self.device)

    def runtime(self, precision: Precision) -> dict[str, object]:
        """Returns what a trial's result depends on, to the bit, besides its spec and seed.

        Args:
            precision: The trial's precision.
        """
        return {
            "device": str(self.device),
            "precision": precision,
            "kernels": kernels_of(self.device, precision),
            "threads": self.threads,
            "cpu": torch.backends.cpu.get_cpu_capability(),
            **package_versions(),
        }


def _load_images(stored: StoredStudy, options: WorkerOptions) -> tuple[Tensor, Tensor]:
    """Returns training and validation images, memory-mapped if ``tune`` has decoded them here."""
    decoded = find_decoded(stored.data_hash, options.data_dir, image_sums(stored))
    if decoded is not None:
        return decoded
    splits = load_images(stored, options.data_dir)
    return splits.train, splits.validation


def _load_test_images(stored: StoredStudy, options: WorkerOptions) -> Tensor:
    decoded = find_decoded_test(stored.data_hash, options.data_dir, image_sums(stored))
    return load_images(stored, options.data_dir).test if decoded is None else decoded
