"""The sources of images by name; a new one is added here and to ``Source`` in config/schema.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from searchae.config import DataSpec, ProgressCallback
from searchae.data import csv_file, folder, house_numbers, mnist, npz, torchvision_sets
from searchae.data.raw_images import RawImages

Source = Callable[[DataSpec, Path, int, ProgressCallback], RawImages]
"""Reads or makes a source's images; called with the spec, the data folder, the study's seed and a
progress callback. Must return the same images for the same spec and seed on every machine, and may
raise no error but ``DataError``."""

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "svhn": torchvision_sets.load_svhn,
        "mnist": mnist.load_mnist,
        "cifar10": torchvision_sets.load_cifar10,
        "house-numbers": house_numbers.load_house_numbers,
        "npz": npz.load_npz,
        "csv": csv_file.load_csv,
        "folder": folder.load_folder,
    }
)
