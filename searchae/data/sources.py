"""Which function reads which source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from searchae.data import csv_file, folder, house_numbers, hub, mnist, npz
from searchae.data.raw import RawImages
from searchae.spec import DataSpec, Progress

Source = Callable[[DataSpec, Path, int, Progress], RawImages]
"""Called with the spec, the data folder, the seed, and whom to tell what goes on. Raises DataError
and nothing else; must give the same images for the same spec and seed, on every machine."""

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "svhn": hub.load_svhn,
        "mnist": mnist.load,
        "cifar10": hub.load_cifar10,
        "house-numbers": house_numbers.load,
        "npz": npz.load,
        "csv": csv_file.load,
        "folder": folder.load,
    }
)
