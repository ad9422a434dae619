"""A bundle's ``config.json``: the net, its training and its data. Does not import torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from searchae.config import (
    DataSpec,
    ModelParams,
    Positive,
    Section,
    TrainParams,
    explain_fault,
)
from searchae.errors import BundleError
from searchae.files import open_input, output_file

FORMAT = 1
CONFIG, WEIGHTS, METRICS = "config.json", "model.safetensors", "metrics.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleConfig(Section):
    """What is needed to build the net again and to measure it on the same images.

    Attributes:
        format: Version of this file's format; readers accept only their own.
        searchae: Version of searchae that wrote the bundle.
        study: Name of the study.
        trial: Number of the trial.
        params: The trial's searched parameters, by name.
        data: The data set.
        data_hash: SHA-256 of the three splits.
        split_seed: Seed of the splits: the study's seed.
        seed: Seed of this training's initialization, shuffling and noise.
        epoch: The epoch after which the weights were taken, from 1.
        image_shape: (C, H, W).
        latent_size: Values in the latent of one image.
        model: The net's architecture.
        train: The training's parameters, with the epochs and patience of this training.
        device: Device of the training.
        threads: CPU threads of the training; with as many, measurements are identical bit by bit.
        precision: Precision of the training steps; measurements always use float32.
        weights_sha256: SHA-256 of the weights file.
    """

    format: Literal[1] = 1
    searchae: str
    study: str
    trial: Annotated[int, Field(ge=0)]
    params: dict[str, Any]
    data: DataSpec
    data_hash: Sha256
    split_seed: int
    seed: int
    epoch: Positive
    image_shape: tuple[Positive, Positive, Positive]
    latent_size: Positive
    model: ModelParams
    train: TrainParams
    device: str
    threads: Positive
    precision: Literal["fp32", "bf16"] = "fp32"
    weights_sha256: Sha256


def read_config(folder: Path) -> BundleConfig:
    """Reads and validates a bundle's ``config.json``.

    Raises:
        BundleError: The folder is not a bundle, or the file is damaged or has another format.
    """
    path = folder / CONFIG
    try:
        with open_input(path) as file:
            document = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        there = folder.exists()
        fault = f"is not a bundle: it has no {CONFIG}" if there else "there is no such folder"
        raise BundleError(
            f"{folder}: {fault}; `searchae train --study NAME --out DIR` writes one"
        ) from None
    except OSError as e:
        raise BundleError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: is damaged: it is not JSON ({e}); write the bundle anew") from e
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT:
        raise BundleError(
            f"{path}: has format {version!r}, this searchae reads {FORMAT}: "
            "it is no bundle's, or another version of searchae wrote it"
        )
    try:
        # From JSON, where pydantic accepts a list for a tuple even in strict mode.
        return BundleConfig.model_validate_json(json.dumps(document))
    except ValidationError as e:
        keys = [(".".join(map(str, fault["loc"])), dict(fault)) for fault in e.errors()]
        faults = [f"  {key}: {explain_fault(fault, key)}" for key, fault in keys]
        raise BundleError(f"{path}: is damaged:", *faults, "Write the bundle anew.") from e


def read_metrics(folder: Path | None) -> dict[str, Any]:
    """Reads a bundle's ``metrics.json``.

    Raises:
        BundleError: There is no such file, or it is damaged.
    """
    if folder is None:
        raise BundleError("this net has no folder, and so no metrics")
    path = folder / METRICS
    try:
        with open_input(path) as file:
            document = json.load(file)
    except OSError as e:
        raise BundleError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: is damaged: it is not JSON ({e}); write the bundle anew") from e
    if not isinstance(document, dict):
        raise BundleError(f"{path}: is damaged: it holds no metrics; write the bundle anew")
    return document


def write_config(folder: Path, config: BundleConfig) -> None:
    """Writes a bundle's ``config.json`` atomically."""
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def write_json(path: Path, document: Any) -> None:
    """Writes an indented JSON file atomically.

    Raises:
        ValueError: The document contains NaN or infinity, which JSON does not allow.
        OSError: The file cannot be written.
    """
    content = json.dumps(document, indent=2, allow_nan=False).encode()
    with output_file(path) as file:
        file.write(content + b"\n")
