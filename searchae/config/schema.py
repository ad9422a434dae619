"""What a study is: a frozen ``StudySpec`` of data, space and search.

A study file is data. Any value under ``[model]`` or ``[train]`` may be a range
(``{ low = 1e-5, high = 1e-1, log = true }``) or a list of choices (``{ choices = [...] }``);
that alone makes it a searched parameter. ``ModelParams`` and ``TrainParams`` are what remains
once every range has been replaced by a value: what one trial is trained with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Activation = Literal["relu", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "silu"]
Optimizer = Literal["adam", "rmsprop", "sgd"]
Regularizer = Literal["none", "clip", "l1", "clip+l1"]
Source = Literal["svhn", "mnist", "cifar10", "house-numbers", "npz", "csv", "folder"]

SOURCES_WITHOUT_PATH = ("svhn", "mnist", "cifar10", "house-numbers")
"""Sources that know where their images come from."""

Positive = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Positive, ...], Field(min_length=1)]


def refuse_flag(value: Any, annotation: Any) -> Any:
    """The value; pydantic would take ``true`` for 1.

    Raises:
        PydanticCustomError: It is a flag, and the annotation is of something else.
    """
    if isinstance(value, bool) and annotation not in (bool, bool | None):
        raise PydanticCustomError("not_a_flag", "must be a number or a text")
    return value


class Section(BaseModel):
    """A section of a study file: immutable, no unknown keys, no NaN, no true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_flag(value, cls.model_fields[info.field_name or ""].annotation)


class DataSpec(Section):
    """Which images, and how they are split. ``[data]`` in a study file.

    Attributes:
        name: The source.
        path: File or folder of an ``npz``, ``csv`` or ``folder`` source; a relative one is looked
            for here, then in the data folder.
        test_path: The same for the test split of ``csv`` and ``folder``; without it, a tenth of
            the images is set aside.
        validation: Share of the training images held out for the search's objective.
        train_images: Take this many training images (before the validation split); all if unset.
        test_images: Take this many test images; all if unset.
        image_size: Side in pixels that images of a ``folder`` are resized to.
        grayscale: Read a ``folder`` as one channel.
    """

    name: Source
    path: str | None = None
    test_path: str | None = None
    validation: float = Field(0.1, gt=0, lt=1)
    train_images: Positive | None = None
    test_images: Positive | None = None
    image_size: Annotated[int, Field(ge=4, le=512)] = 32
    grayscale: bool = False


class Layer(Section):
    """One convolution of an explicit ``encoder`` or ``decoder``, in the order that it runs.

    Attributes:
        channels: Output channels.
        kernel_size: Side of the square kernel in pixels.
        stride: Step in pixels.
        padding: Zero padding in pixels on each side.
        pool: Max-pooling by this factor after the activation; 1 for none.
        upsample: Nearest-neighbour upsampling by this factor after the activation; 1 for none.
        transpose: A transposed convolution; unset: in the decoder yes, in the encoder no.
    """

    channels: Positive
    kernel_size: Positive = 3
    stride: Positive = 1
    padding: Annotated[int, Field(ge=0)] = 1
    pool: Positive = 1
    upsample: Positive = 1
    transpose: bool | None = None


class ModelParams(Section):
    """The net of one trial. ``[model]`` in a study file.

    Attributes:
        kind: ``conv`` or ``dense``.
        channels: Conv: widths of the encoder; each halves the image; the decoder mirrors them.
        kernel_size: Conv: kernel of the encoder's ``channels``, in pixels; odd.
        downsample: Conv: how ``channels`` halve: a stride of 2, or max-pooling (then the decoder
            upsamples by nearest neighbour).
        encoder: Conv: explicit layers instead of ``channels``; needs ``decoder``.
        decoder: Conv: explicit layers; the last one has the output activation and no norm.
        bottleneck: Conv: a dense layer to ``latent_dim`` and back, global average pooling to the
            last width (``gap``), or none (the latent is the last feature map).
        batch_norm: Conv: batch normalisation before each hidden activation.
        hidden: Dense: widths between the image and the latent; mirrored on the way back.
        latent_dim: Size of the latent of a dense bottleneck.
        activation: Between layers.
        latent_activation: On the latent itself: ``none``, or ``same`` as ``activation``.
        output: Activation on the reconstruction.
        image_range: Range that images are fed in and reconstructed in: ``unit`` [0, 1] or
            ``symmetric`` [-1, 1]. Metrics are always taken on [0, 1].
    """

    kind: Literal["conv", "dense"] = "conv"
    channels: Widths = (32, 64, 128)
    kernel_size: Annotated[int, Field(ge=1, le=15)] = 3
    downsample: Literal["stride", "pool"] = "stride"
    encoder: Annotated[tuple[Layer, ...], Field(min_length=1)] | None = None
    decoder: Annotated[tuple[Layer, ...], Field(min_length=1)] | None = None
    bottleneck: Literal["dense", "gap", "none"] = "dense"
    batch_norm: bool = False
    hidden: Widths = (128, 64)
    latent_dim: Positive = 64
    activation: Activation = "relu"
    latent_activation: Literal["none", "same"] = "none"
    output: Literal["sigmoid", "tanh", "none"] = "sigmoid"
    image_range: Literal["unit", "symmetric"] = "unit"


class TrainParams(Section):
    """How one trial is trained. ``[train]`` in a study file.

    Attributes:
        epochs: Epochs of a full training; the pruner's largest resource. Never searched.
        batch_size: Images a step.
        optimizer: ``adam``, ``rmsprop`` or ``sgd``.
        learning_rate: Constant.
        momentum: Of sgd and rmsprop.
        weight_decay: L2 coefficient inside the optimizer.
        regularizer: ``clip`` clamps every weight to [-clip, clip]; ``l1`` adds a penalty; both,
            or none.
        clip: The bound.
        l1_weight: Factor of the mean absolute value of the target.
        l1_target: What the L1 penalty is on: ``latent`` activations or ``weights``.
        noise_std: Standard deviation of Gaussian noise on the input, on the [0, 1] scale of
            images; the target stays clean (denoising).
        noise_from_epoch: The first epoch with that noise; earlier ones train the same weights on
            clean input. The validation split has noise in every epoch, so that epochs compare.
        patience: Stop when the validation PSNR has not risen by ``min_delta_db`` in this many
            epochs, those before ``noise_from_epoch`` not counted; 0 for never.
        min_delta_db: See ``patience``; in dB.
    """

    epochs: Positive = 20
    batch_size: Positive = 128
    optimizer: Optimizer = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    regularizer: Regularizer = "clip"
    clip: float = Field(0.5, gt=0)
    l1_weight: float = Field(1e-4, ge=0)
    l1_target: Literal["latent", "weights"] = "latent"
    noise_std: float = Field(0.0, ge=0)
    noise_from_epoch: Positive = 1
    patience: int = Field(0, ge=0)
    min_delta_db: float = Field(0.01, ge=0)

    @property
    def clips(self) -> bool:
        """Whether weights are clamped."""
        return "clip" in self.regularizer

    @property
    def l1(self) -> float:
        """The L1 factor that applies: 0 without an L1 regularizer."""
        return self.l1_weight if "l1" in self.regularizer else 0.0


class SearchSpec(Section):
    """How the space is searched. ``[search]`` in a study file.

    Attributes:
        trials: The budget: trials that end COMPLETE or PRUNED.
        sampler: ``tpe``, ``random`` or ``gp``.
        pruner: ``successive-halving``, ``hyperband``, ``median`` or ``none``. The default was
            measured: ``benchmarks/defaults.md``.
        min_epochs: No trial is pruned before it has run this many.
        reduction_factor: Of successive halving and hyperband: one in so many goes on at a rung;
            unset, 2 and 3.
        startup_trials: Trials sampled at random before the sampler learns.
        first: The trials that the search begins with, in this order: searched parameter -> value.
            A parameter that is left out is sampled.
        midpoint_first: Without such trials, begin with the middle of the space: of each range, of
            each list of choices the first. Not in a random search, nor after a warm start.
        heartbeat_s: Seconds between a worker's signs of life.
        grace_s: Seconds without one after which a trial is given to another worker.
        max_attempts: A trial whose worker died this often is given up as failed.
    """

    trials: Positive = 100
    sampler: Literal["tpe", "random", "gp"] = "tpe"
    pruner: Literal["successive-halving", "hyperband", "median", "none"] = "successive-halving"
    min_epochs: Positive = 1
    reduction_factor: int = Field(
        default_factory=lambda so_far: 2 if so_far["pruner"] == "successive-halving" else 3, ge=2
    )
    startup_trials: Annotated[int, Field(ge=0)] = 10
    first: tuple[dict[str, Any], ...] = ()
    midpoint_first: bool = True
    heartbeat_s: float = Field(20.0, gt=0)
    grace_s: float = Field(300.0, gt=0)
    max_attempts: Positive = 3


Value = bool | int | float | str
"""A value as Optuna stores it; anything richer travels as its JSON text."""


@dataclass(frozen=True)
class Parameter:
    """One searched parameter: a numeric range, or choices.

    Attributes:
        key: Where it stands in the study file, such as ``train.learning_rate``.
        low: Smallest value of a range.
        high: Largest value of a range, inclusive.
        log: Sample a range's logarithm.
        step: Grid of a range; 1 for integers unless given.
        integer: A range of whole numbers.
        choices: The values to choose from; empty for a range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    integer: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the key: the parameter's name in the study."""
        return self.key.rpartition(".")[2]

    @cached_property
    def labels(self) -> tuple[Value, ...]:
        """The choices as Optuna stores them, in order."""
        return tuple(label(c) for c in self.choices)

    def value(self, label: Value) -> Any:
        """The value that a stored label stands for."""
        return self.choices[self.labels.index(label)] if self.choices else label

    def document(self) -> dict[str, Any]:
        """As it is written in a study file."""
        if self.choices:
            return {"choices": list(self.choices)}
        number = int if self.integer else float
        entry: dict[str, Any] = {"low": number(self.low), "high": number(self.high)}
        if self.log:
            entry["log"] = True
        if self.step is not None:
            entry["step"] = number(self.step)
        return entry


CONDITIONS: dict[str, tuple[str, frozenset[str]]] = {
    "train.l1_weight": ("train.regularizer", frozenset({"l1", "clip+l1"})),
    "train.momentum": ("train.optimizer", frozenset({"sgd", "rmsprop"})),
}
"""A searched key -> the key that it hangs on, and under which values it is sampled."""

NOT_IDENTITY = frozenset(
    {"description", "data.path", "data.test_path"}
    | {f"search.{k}" for k in ("trials", "heartbeat_s", "grace_s", "max_attempts")}
)
"""Keys that may change between two runs of one study: none of them changes a trial's result."""

SECTIONS: dict[str, type[Section]] = {
    "data": DataSpec,
    "model": ModelParams,
    "train": TrainParams,
    "search": SearchSpec,
}
SEARCHABLE = ("model", "train")
NOT_SEARCHABLE = {
    "train.epochs": "the pruner compares trials at equal epochs; use train.patience",
    "train.patience": "fix it, so that trials stop by one rule",
    "train.min_delta_db": "fix it, so that trials stop by one rule",
}


@dataclass(frozen=True)
class TrialParams:
    """What one trial is trained with: every range replaced by a value."""

    model: ModelParams
    train: TrainParams


@dataclass(frozen=True)
class StudySpec:
    """A whole study: data, space and search, checked and immutable.

    Attributes:
        description: For people.
        seed: Decides split, initialisation, shuffling, noise and sampling.
        data: Which images.
        search: How to search.
        fixed: Section -> key -> value, for what is not searched.
        space: The searched parameters, in the file's order.
    """

    description: str
    seed: int
    data: DataSpec
    search: SearchSpec
    fixed: Mapping[str, Mapping[str, Any]]
    space: tuple[Parameter, ...]

    @property
    def epochs(self) -> int:
        """Epochs of a full training."""
        return int(self.fixed["train"]["epochs"])

    def is_active(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a searched key is sampled, given the values of earlier keys.

        Args:
            key: For example ``train.l1_weight``.
            values: Key -> value of what has been sampled already.
        """
        if key not in CONDITIONS:
            return True
        parent, wanted = CONDITIONS[key]
        section, _, name = parent.partition(".")
        return values.get(parent, self.fixed[section].get(name)) in wanted

    def resolve(self, values: Mapping[str, Any]) -> TrialParams:
        """Puts values in the place of ranges.

        Args:
            values: Key -> value; an inactive key may be left out (its default applies).
        """
        parts: dict[str, dict[str, Any]] = {s: dict(self.fixed[s]) for s in SEARCHABLE}
        for key, value in values.items():
            section, _, name = key.partition(".")
            parts[section][name] = value
        return TrialParams(ModelParams(**parts["model"]), TrainParams(**parts["train"]))

    def document(self) -> dict[str, Any]:
        """The whole spec, defaults included, as JSON values: what the study stores."""
        sections: dict[str, Any] = {s: jsonable(dict(self.fixed[s])) for s in SEARCHABLE}
        for p in self.space:
            section, _, name = p.key.partition(".")
            sections[section][name] = jsonable(p.document())
        return {
            "description": self.description,
            "seed": self.seed,
            "data": self.data.model_dump(mode="json"),
            **sections,
            "search": self.search.model_dump(mode="json"),
        }

    def differences(self, other: StudySpec) -> list[str]:
        """What in ``other`` would change results, a line each: ``key: here -> there``."""
        here, there = _flat(self.document()), _flat(other.document())
        keys = [k for k in {**here, **there} if k not in NOT_IDENTITY]
        return [
            f"{k}: {json.dumps(here.get(k))} -> {json.dumps(there.get(k))}"
            for k in keys
            if here.get(k) != there.get(k)
        ]


def label(value: Any) -> Value:
    """A value as Optuna stores it: scalars as they are, anything richer as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def jsonable(value: Any) -> Any:
    """The same value in JSON's types: models as dicts, tuples as lists."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    return [jsonable(v) for v in value] if isinstance(value, list | tuple) else value


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if not prefix and isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


ProgressCallback = Callable[[str], None]
"""Called with a line for the user while something long goes on."""
