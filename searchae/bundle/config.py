"""``config.json``: what a bundle's weights are, and where they come from. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from searchae.config import DataSpec, ModelParams, Positive, Section, TrainParams
from searchae.errors import BundleError
from searchae.files import atomic_file

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleConfig(Section):
    """Everything that is needed to build the net again and to measure it on the same images.

    Attributes:
        format: Of this file; a reader refuses another one.
        searchae: The version that wrote it.
        study: The study that the trial is from.
        trial: Its number.
        params: Its searched parameters, by name.
        data: The images that it was trained on.
        data_hash: Of all three splits.
        split_seed: Decided the splits: the study's seed.
        seed: Decided initialisation, shuffling and noise of these weights.
        epoch: The weights are those after this epoch.
        image_shape: (C, H, W).
        latent_size: Numbers in the latent of one image.
        model: The net.
        train: How it was trained; ``epochs`` and the plateau rule as they were for this training.
        device: Where it was trained.
        threads: CPU threads that it was trained with; figures are the same to the bit with as many.
        precision: Of the training steps; figures are measured in float32 always.
        weights_sha256: Of the file with the weights.
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
    """Reads and checks a bundle's ``config.json``.

    Raises:
        BundleError: The folder is no bundle, or the file is damaged or of another format.
    """
    path = folder / CONFIG
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        there = folder.exists()
        fault = f"is no bundle: there is no {CONFIG} in it" if there else "there is no such folder"
        raise BundleError(
            f"{folder}: {fault}; `searchae train --study NAME --out DIR` writes one"
        ) from None
    except OSError as e:
        raise BundleError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: is damaged: it is not JSON ({e}); write the bundle anew") from e
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{path}: has format {found!r}, this searchae reads {FORMAT}: "
            "it is no bundle's, or another version of searchae wrote it"
        )
    try:
        # As JSON: in Python's own types a list is no tuple.
        return BundleConfig.model_validate_json(json.dumps(document))
    except ValidationError as e:
        faults = [f"  {'.'.join(str(p) for p in f['loc'])}: {f['msg']}" for f in e.errors()]
        lines = "\n".join(faults)
        raise BundleError(f"{path}: is damaged:\n{lines}\nWrite the bundle anew.") from e


def write_config(folder: Path, config: BundleConfig) -> None:
    """Writes a bundle's ``config.json``, whole or not at all."""
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def write_json(path: Path, document: Any) -> None:
    """Writes JSON that a person can read; NaN is refused, since it would not be JSON."""
    content = json.dumps(document, indent=2, allow_nan=False).encode()
    with atomic_file(path) as file:
        file.write(content + b"\n")
