"""Which function reads which source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from searchae.config import DataSpec, ProgressCallback
from searchae.data import csv_file, folder, house_numbers, mnist, npz, torchvision_sets
from searchae.data.raw_images import RawImages

Source = Callable[[DataSpec, Path, int, ProgressCallback], RawImages]
"""Called with the spec, the data folder, the seed, and whom to tell what goes on. Raises DataError
and nothing else; must give the same images for the same spec and seed, on every machine."""

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "svhn": torchvision_sets.load_svhn,
        "mnist": mnist.load,
        "cifar10": torchvision_sets.load_cifar10,
        "house-numbers": house_numbers.load,
        "npz": npz.load,
        "csv": csv_file.load,
        "folder": folder.load,
    }
)
