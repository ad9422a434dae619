"""The sections of a study file: their keys, types, defaults and bounds.

Any value under ``[model]`` or ``[train]`` may instead be a range
(``{ low = 1e-5, high = 1e-1, log = true }``) or a list of choices (``{ choices = [...] }``), which
makes it a searched parameter. ``ModelParams`` and ``TrainParams`` hold the values of one trial,
after each range has been replaced by a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

Activation = Literal["relu", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "silu"]
Optimizer = Literal["adam", "adamw", "nadam", "rmsprop", "sgd"]
Loss = Literal["mse", "l1", "huber", "bce"]
Schedule = Literal["constant", "cosine", "step", "plateau"]
Regularizer = Literal[
    "none",
    "clip",
    "l1",
    "clip+l1",
    "contractive",
    "clip+contractive",
    "k-sparse",
    "clip+k-sparse",
]
ObjectiveName = Literal["psnr", "sparsity", "parameters", "latent_dim"]
Source = Literal["svhn", "mnist", "cifar10", "house-numbers", "npz", "csv", "folder"]

SOURCES_WITHOUT_PATH = ("svhn", "mnist", "cifar10", "house-numbers")
"""Sources that need no ``path``: they are downloaded or drawn."""

MOST = 2**31 - 1
"""Largest whole number: what is larger is a slip, and overflows in a library underneath."""

Positive = Annotated[int, Field(ge=1, le=MOST)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]


def _refuse_empty(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "must not be empty")
    return text


NotEmpty = Annotated[str, AfterValidator(_refuse_empty)]


class Arguments(dict[str, Any]):
    """Arguments of a function by name, as JSON has them; hashable, like all other values."""

    def __hash__(self) -> int:  # type: ignore[override]
        """Returns a hash of the content, which is never changed."""
        return hash(json.dumps(self, sort_keys=True))


def check_argument(value: Any) -> Any:
    """Refuses what is no number, text, flag or list of these.

    Raises:
        PydanticCustomError: The value is something else.
    """
    if isinstance(value, list | tuple):
        return [check_argument(v) for v in value]
    if not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("argument", "must be a number, a text, true, false or a list")
    return value


def _arguments(values: dict[str, Any]) -> Arguments:
    for name in values:
        if not name.isidentifier() or name == "image_shape":
            raise PydanticCustomError("argument_name", f"{name!r} is no name of an argument")
    return Arguments({name: check_argument(value) for name, value in values.items()})


Widths = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]

SMALLEST_SIDE, LARGEST_SIDE = 4, 512
"""Of images, in pixels."""


def _image_size(value: Any) -> int | tuple[int, int]:
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(
        type(side) is int and SMALLEST_SIDE <= side <= LARGEST_SIDE for side in sides
    ):
        raise PydanticCustomError(
            "image_size",
            "must be the side of a square, such as 32, or height and width, such as [48, 64], each "
            f"from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels",
        )
    height, width = sides
    return int(height) if height == width else (height, width)


ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_image_size)]


def refuse_flag(value: Any, annotation: Any) -> Any:
    """Refuses true and false where no bool is expected: pydantic would take them for 1 and 0.

    Args:
        value: The value.
        annotation: The field's type.

    Returns:
        The value, unchanged.

    Raises:
        PydanticCustomError: The value is a bool and the field is not.
    """
    if isinstance(value, bool) and annotation not in (bool, bool | None):
        raise PydanticCustomError("not_a_flag", "must be a number or a text")
    return value


class Section(BaseModel):
    """Base of all sections: immutable, without unknown keys, NaN, infinity or bools as numbers.

    Attributes:
        later_keys: Keys that were added later. Documents leave them out where they have their
            default, so that earlier versions read the rest.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def without_later_defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a section's values, as JSON has them, without later keys with their default."""
        defaults = {k: jsonable(cls.model_fields[k].get_default()) for k in cls.later_keys}
        return {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}

    def document(self) -> dict[str, Any]:
        """Returns the section as JSON has it, without later keys that have their default."""
        return self.without_later_defaults(self.model_dump(mode="json"))

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flag(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_flag(value, cls.model_fields[info.field_name or ""].annotation)


class DataSpec(Section):
    """The images and how they are split: ``[data]``.

    Attributes:
        name: The source of the images.
        path: File or folder of an ``npz``, ``csv`` or ``folder`` source. A relative path is looked
            for in the current folder, then in the data folder, then beside the study file; unless
            it is found in the data folder it is stored as an absolute one.
            Another machine that has no such path looks for its end in its data folder.
        test_path: The same for the test split of a ``csv`` or ``folder`` source. If unset, a tenth
            of the images becomes the test split.
        validation: Share of the training images in the validation split, whose PSNR is the
            search's objective; above 0 and below 1.
        train_images: How many training images to draw, before the validation split; all if unset.
        test_images: How many test images to draw; all if unset.
        image_size: What images of a ``folder`` become, in pixels: the side of a square, or height
            and width.
        fit: How images of a ``folder`` of another shape get it: ``crop``, resized and cut to the
            middle; ``pad``, resized and surrounded by ``background``; or ``stretch``.
        grayscale: Whether images of a ``folder`` are converted to one channel.
        alpha: Whether the transparency of images of a ``folder`` is kept, as a further channel.
        background: The colour that transparent and padded images of a ``folder`` are shown on.
        white: The value of white in an ``npz``, a ``csv``, or the 16-bit and float files of a
            ``folder``, and in its 8-bit files if it is at most 255; if unset, the type's: 255, 1
            for floats, 65535 for 16 bits.
        extra: Whether the 531,131 easier images of ``svhn`` are trained on too.
        bits: Bits of a value, 8 or 16: with 16, what has more than 8 is kept to 65,536 levels.
        label: Which end of a ``csv``'s rows is the label; if unset, what header and values say.
    """

    later_keys = frozenset({"background", "white", "label", "fit", "alpha", "bits", "extra"})

    name: Source
    path: NotEmpty | None = None
    test_path: NotEmpty | None = None
    validation: float = Field(0.1, gt=0, lt=1)
    train_images: Positive | None = None
    test_images: Positive | None = None
    image_size: ImageSize = 32
    fit: Literal["crop", "pad", "stretch"] = "crop"
    grayscale: bool = False
    alpha: bool = False
    background: Literal["white", "black"] = "white"
    white: float | None = Field(None, gt=0)
    bits: Literal[8, 16] = 8
    extra: bool = False
    label: Literal["first", "last"] | None = None

    @property
    def value_bits(self) -> Literal[8, 16]:
        """``bits``, or 8 with a source that has no more."""
        return self.bits if self.name in ("npz", "folder") else 8

    @property
    def height_and_width(self) -> tuple[int, int]:
        """``image_size`` in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @model_serializer(mode="wrap")
    def _leave_out_later_keys(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves them out of the documents of other sections' owners too, such as bundles."""
        return self.without_later_defaults(serialize(self))


class Layer(Section):
    """One convolution of an explicit ``encoder`` or ``decoder``, with what follows it.

    Attributes:
        channels: Output channels.
        kernel_size: Side of the square kernel in pixels.
        stride: Stride in pixels.
        padding: Zero padding on each side, in pixels.
        pool: Max-pooling by this factor after the activation; 1 for none.
        upsample: Nearest-neighbour upsampling by this factor after the activation; 1 for none.
        transpose: Whether the convolution is transposed; if unset, it is in the decoder only.
    """

    channels: Positive
    kernel_size: Positive = 3
    stride: Positive = 1
    padding: NotNegative = 1
    pool: Positive = 1
    upsample: Positive = 1
    transpose: bool | None = None


class ModelParams(Section):
    """The model of one trial: ``[model]``.

    Attributes:
        kind: ``conv`` or ``dense``; or ``python`` for a net of one's own, which takes
            ``factory``, ``args`` and ``image_range`` and no other key.
        factory: For python: the function that builds the net, as ``FILE.py:FUNCTION`` or
            ``PACKAGE.MODULE:FUNCTION``; see ``models/own_net.py``.
        factory_sha256: For python: SHA-256 of its file, found by ``tune``.
        args: For python: the function's arguments by name; each may be a range or choices.
        channels: For conv: output channels of the encoder's layers. Each layer halves the image;
            the decoder mirrors them.
        kernel_size: For conv: side of the kernels of ``channels``, in pixels; odd.
        downsample: For conv: how the layers of ``channels`` halve the image: by a stride of 2, or
            by max-pooling (the decoder then upsamples by nearest neighbour).
        encoder: For conv: explicit layers instead of ``channels``; needs ``decoder``.
        decoder: For conv: explicit layers; the last one has the output activation and no batch
            normalisation.
        bottleneck: For conv: ``dense``, linear layers to ``latent_dim`` and back; ``gap``, global
            average pooling of the last feature map; or ``none``, where the last feature map is
            the latent.
        batch_norm: For conv: whether there is batch normalisation before each hidden activation.
        group_norm: For conv: groups of the group normalisation before each hidden activation; 0 for
            none. Each layer's channels must be a multiple of it.
        residual_blocks: For conv: residual blocks after each hidden layer.
        dropout: Share of the hidden layers' values (for conv, of their channels) that training sets
            to 0 after the activation.
        hidden: For dense: widths of the encoder's hidden layers; the decoder mirrors them.
        latent_dim: Size of the latent; it must be the last channels with ``gap``, and is not used
            with ``none``.
        activation: The activation of the hidden layers.
        latent_activation: The activation of the latent: ``none``, or ``same`` as ``activation``.
        variational: Whether the latent is a Gaussian distribution, of which training decodes a
            sample and everything else the mean (a variational autoencoder); see ``train.beta``.
        output: The activation of the reconstruction.
        image_range: The range of the model's inputs and outputs: ``unit`` for [0, 1] or
            ``symmetric`` for [-1, 1]. Metrics are always computed in [0, 1].
    """

    later_keys = frozenset(
        {
            *("factory", "factory_sha256", "args", "variational"),
            *("group_norm", "residual_blocks", "dropout"),
        }
    )

    kind: Literal["conv", "dense", "python"] = "conv"
    factory: NotEmpty | None = None
    factory_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    args: Annotated[dict[str, Any], AfterValidator(_arguments)] = Field(default=Arguments())
    channels: Widths = (32, 64, 128)
    kernel_size: Annotated[int, Field(ge=1, le=15)] = 3
    downsample: Literal["stride", "pool"] = "stride"
    encoder: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=64)] | None = None
    decoder: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=64)] | None = None
    bottleneck: Literal["dense", "gap", "none"] = "dense"
    batch_norm: bool = False
    group_norm: NotNegative = 0
    residual_blocks: Annotated[int, Field(ge=0, le=64)] = 0
    dropout: float = Field(0.0, ge=0, lt=1)
    hidden: Widths = (128, 64)
    latent_dim: Positive = 64
    activation: Activation = "relu"
    latent_activation: Literal["none", "same"] = "none"
    variational: bool = False
    output: Literal["sigmoid", "tanh", "none"] = "sigmoid"
    image_range: Literal["unit", "symmetric"] = "unit"


class TrainParams(Section):
    """How one trial is trained: ``[train]``.

    Attributes:
        epochs: Epochs of a full training, which is the pruner's maximum resource; never searched.
        batch_size: Images in a training step.
        optimizer: ``adam``, ``adamw``, ``nadam``, ``rmsprop`` or ``sgd``.
        learning_rate: The learning rate, where ``schedule`` does not lower it.
        schedule: How the learning rate changes from epoch to epoch; see ``training/schedule.py``.
            ``constant``; ``cosine``, along half a cosine from ``learning_rate`` to near 0 in the
            last epoch; ``step``, times ``decay_factor`` every ``decay_epochs`` epochs; or
            ``plateau``, times ``decay_factor`` when the validation PSNR has not improved by
            ``min_delta_db`` for ``decay_epochs`` epochs.
        decay_factor: For ``step`` and ``plateau``.
        decay_epochs: For ``step`` and ``plateau``.
        warmup_epochs: Epochs at the start in which the learning rate rises linearly to its value.
        max_gradient_norm: Longer gradients, as a vector of all weights, are scaled down to this
            Euclidean norm before each update; unset for none.
        momentum: Momentum of sgd and rmsprop.
        weight_decay: Coefficient of L2 regularization, added to the gradient; with adamw of the
            decay that is decoupled from it, which must be given.
        loss: What is minimized, over all pixels and channels, in the model's own range of values:
            the mean squared error (``mse``), the mean absolute error (``l1``), Huber's loss, or the
            binary cross-entropy (``bce``, which needs outputs between 0 and 1). The search's
            objective is the PSNR, whatever the loss.
        huber_delta: The error from which on Huber's loss is linear.
        ssim_weight: Share of 1 - SSIM in the loss; ``loss`` has the rest.
        beta: Weight of the Kullback-Leibler divergence of a variational latent from a standard
            normal distribution, where both it and the loss are summed over an image: 1 for a plain
            variational autoencoder.
        beta_warmup_epochs: Epochs at the start in which this weight rises linearly to its value.
        regularizer: ``clip`` clamps every weight to [-clip, clip] after each step; ``l1`` adds an
            L1 penalty to the loss; ``contractive`` adds one on how much the latent changes with the
            image; ``k-sparse`` keeps the largest values of each latent only, in training and ever
            after. ``clip+l1``, ``clip+contractive`` and ``clip+k-sparse`` clip too.
        clip: The bound of ``clip``.
        l1_weight: Coefficient of the L1 penalty, which is the mean absolute value of the target.
        l1_target: What the L1 penalty is applied to: ``latent`` activations or ``weights``.
        contractive_weight: Coefficient of the contractive penalty: the squared Frobenius norm of
            the latent's Jacobian with respect to the net's input, averaged over the images.
        active_latents: How many values of each latent ``k-sparse`` keeps, the largest in magnitude;
            at most all of them.
        shift_pixels: Training images are moved by up to so many pixels in each direction, anew in
            each epoch, with edges repeated. What is moved (mirrored, brightened) is input and
            target. Validation and measurement have the images as they are.
        flip: Whether each training image is mirrored from left to right with a probability of 1/2.
        brightness: Each training image is multiplied by a factor between 1 minus and 1 plus this,
            and clamped to [0, 1].
        noise_std: Standard deviation of Gaussian noise that is added to the input, for images in
            [0, 1]; the target stays clean (a denoising autoencoder). 0 for none.
        noise_from_epoch: The first epoch that trains with this noise. Validation has it in every
            epoch, so that epochs can be compared.
        patience: Stop when the validation PSNR has not improved by ``min_delta_db`` for this many
            epochs, counted from ``noise_from_epoch``; 0 never stops. Epochs do not count before the
            net is 1 dB above the mean training image: it may need many of them to begin to learn.
        min_delta_db: The smallest improvement that counts for ``patience``, in dB.
    """

    later_keys = frozenset(
        {
            *("schedule", "decay_factor", "decay_epochs", "warmup_epochs", "max_gradient_norm"),
            *("loss", "huber_delta", "ssim_weight", "beta", "beta_warmup_epochs"),
            *("contractive_weight", "active_latents", "shift_pixels", "flip", "brightness"),
        }
    )

    epochs: Positive = 20
    batch_size: Positive = 128
    optimizer: Optimizer = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Schedule = "constant"
    decay_factor: float = Field(0.5, gt=0, lt=1)
    decay_epochs: Positive = 10
    warmup_epochs: NotNegative = 0
    max_gradient_norm: float | None = Field(None, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    loss: Loss = "mse"
    huber_delta: float = Field(0.1, gt=0)
    ssim_weight: float = Field(0.0, ge=0, le=1)
    beta: float = Field(1.0, ge=0)
    beta_warmup_epochs: NotNegative = 0
    regularizer: Regularizer = "clip"
    clip: float = Field(0.5, gt=0)
    l1_weight: float = Field(1e-4, ge=0)
    l1_target: Literal["latent", "weights"] = "latent"
    contractive_weight: float = Field(1e-4, ge=0)
    active_latents: Positive = 16
    shift_pixels: NotNegative = 0
    flip: bool = False
    brightness: float = Field(0.0, ge=0, lt=1)
    noise_std: float = Field(0.0, ge=0)
    noise_from_epoch: Positive = 1
    patience: NotNegative = 0
    min_delta_db: float = Field(0.01, ge=0)

    @property
    def clips(self) -> bool:
        """Whether weights are clipped."""
        return "clip" in self.regularizer

    @property
    def l1(self) -> float:
        """The coefficient of the L1 penalty; 0 without an L1 regularizer."""
        return self.l1_weight if "l1" in self.regularizer else 0.0

    @property
    def contractive(self) -> float:
        """The coefficient of the contractive penalty; 0 without one."""
        return self.contractive_weight if "contractive" in self.regularizer else 0.0

    @property
    def k_sparse(self) -> int | None:
        """How many values of a latent are kept; None for all of them."""
        return self.active_latents if "k-sparse" in self.regularizer else None

    @property
    def augments(self) -> bool:
        """Whether training images are changed at random."""
        return bool(self.shift_pixels or self.flip or self.brightness)

    @property
    def needs_latent(self) -> str:
        """What cannot be done with a net that has no latent, as a message; empty if all can."""
        if self.l1 and self.l1_target == "latent":
            return 'train.l1_target: the net has no latent to put a penalty on; use "weights"'
        if self.contractive or self.k_sparse:
            return f'train.regularizer: the net has no latent, which "{self.regularizer}" acts on'
        return ""


_BY_HALVES = ("successive-halving", "asha")


class SearchSpec(Section):
    """How the space is searched: ``[search]``.

    Attributes:
        trials: The budget: how many trials have to end COMPLETE or PRUNED.
        objectives: What is optimized: ``psnr`` first, then any of ``sparsity`` (maximized),
            ``parameters`` and ``latent_dim`` (minimized). With several, nothing is pruned.
        sampler: ``tpe``, ``random`` or ``gp``; ``nsga2`` for several objectives.
        pruner: ``successive-halving``, ``hyperband``, ``median``, ``asha`` or ``none``. ``asha``
            pauses trials that the first one would end: see ``search/promotion.py``. The default
            was chosen by measurement: ``benchmarks/defaults.md``.
        min_epochs: Epochs that a trial runs before it can be pruned. Where a study does not give
            it, ``tune`` chooses so many that they have 25 training steps: ``tune/first_rung.py``.
        first_report: The share of the first epoch after which a trial reports its PSNR first, and
            can be pruned: 1 divided by a power of ``reduction_factor``, such as 0.125. It then
            reports after each share that is a rung, measured on a sample of the validation
            images. For long epochs.
        reduction_factor: For successive halving and asha (default 2) and hyperband (default 3): one
            in this many trials is promoted at each rung.
        startup_trials: Trials that are sampled at random before the sampler uses their results;
            with ``nsga2`` (default 20, else 10) the size of its population.
        min_trials_per_choice: Trials that each choice of a searched parameter with two to eight
            choices gets, bad ones too; 0 for as many as the sampler gives it. See
            ``search/choice_floor.py``. Not in a random search.
        first: The trials that the search begins with, in this order, each as searched parameter ->
            value. Parameters that are left out are sampled.
        midpoint_first: Whether a search without ``first`` begins with the middle of the space: the
            middle of each range and the first of each list of choices. Never in a random search
            or after a warm start.
        heartbeat_s: Seconds between two heartbeats of a worker.
        grace_s: Seconds without a heartbeat after which a trial is given to another worker.
        max_attempts: How many workers of a trial may die before the trial fails.
        max_parameters: Nets with more trainable parameters than this are not trained: other
            parameters are sampled instead.
        max_paused: For asha: how many trials may be paused at a time, each with a checkpoint. Above
            it the least promising ones are pruned.
        max_paused_gb: For asha: how many GB (1e9 bytes) their checkpoints may take, likewise.
        stop_when_stable: End the search once this many trials in a row are no better than the best
            one before by at least 0.05 dB, whatever is left of ``trials``. By default it has all.
    """

    later_keys = frozenset(
        {
            "first_report",
            "max_parameters",
            "max_paused",
            "max_paused_gb",
            "objectives",
            "stop_when_stable",
        }
    )

    trials: Positive = 100
    objectives: tuple[ObjectiveName, ...] = ("psnr",)
    sampler: Literal["tpe", "random", "gp", "nsga2"] = "tpe"
    pruner: Literal["successive-halving", "hyperband", "median", "asha", "none"] = (
        "successive-halving"
    )
    min_epochs: Positive = 1
    first_report: float = Field(1.0, gt=0, le=1)
    reduction_factor: int = Field(
        default_factory=lambda so_far: 2 if so_far["pruner"] in _BY_HALVES else 3,
        ge=2,
        le=MOST,
    )
    startup_trials: int = Field(
        default_factory=lambda so_far: 20 if so_far["sampler"] == "nsga2" else 10, ge=0, le=MOST
    )
    min_trials_per_choice: NotNegative = 6
    first: tuple[dict[str, Any], ...] = ()
    midpoint_first: bool = True
    heartbeat_s: float = Field(20.0, gt=0)
    grace_s: float = Field(300.0, gt=0)
    max_attempts: Positive = 3
    max_parameters: Positive | None = None
    max_paused: Positive = 32
    max_paused_gb: float = Field(10.0, gt=0)
    stop_when_stable: Positive | None = None

    @property
    def reports_per_epoch(self) -> int:
        """The unit of Optuna's steps: a trial's report after E epochs is step E times this."""
        return round(1 / self.first_report)

    @property
    def first_rung(self) -> int:
        """The first step at which a trial can be pruned."""
        return 1 if self.first_report < 1 else self.min_epochs

    @property
    def report_shares(self) -> tuple[float, ...]:
        """The shares of the first epoch after which a trial reports; none by default."""
        found, step = list[float](), 1
        while step < self.reports_per_epoch:
            found.append(step / self.reports_per_epoch)
            step *= self.reduction_factor
        return tuple(found)

    def epochs_at(self, step: int) -> float:
        """Returns the epochs that a trial has trained at one of Optuna's steps."""
        epochs, rest = divmod(step, self.reports_per_epoch)
        return epochs + rest / self.reports_per_epoch if rest else epochs

    @property
    def pauses(self) -> bool:
        """Whether trials that are not among the best of their rung are paused."""
        return self.pruner == "asha" and not self.has_several_objectives

    @property
    def has_several_objectives(self) -> bool:
        """Whether there are objectives besides the PSNR."""
        return len(self.objectives) > 1


SECTIONS: dict[str, type[Section]] = {
    "data": DataSpec,
    "model": ModelParams,
    "train": TrainParams,
    "search": SearchSpec,
}
"""The sections of a study file by name."""

SEARCHABLE = ("model", "train")
"""The sections whose values may be searched."""

NOT_SEARCHABLE = {
    "train.epochs": "the pruner compares trials at equal epochs; use train.patience",
    "train.patience": "fix it, so that trials stop by one rule",
    "train.min_delta_db": "fix it, so that trials stop by one rule",
}
"""Keys of these sections that may not be searched all the same -> why, and what to do."""


@dataclass(frozen=True)
class TrialParams:
    """The parameters of one trial."""

    model: ModelParams
    train: TrainParams


PYTHON_KEYS = frozenset({"kind", "factory", "factory_sha256", "args", "image_range"})
"""The keys of ``[model]`` that a net of ``kind = "python"`` has."""

ARGUMENT = "model.args."
"""What the key of a searched argument begins with."""


def jsonable(value: Any) -> Any:
    """Converts a value to JSON's types: sections to dicts, tuples to lists."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    return [jsonable(v) for v in value] if isinstance(value, list | tuple) else value


ProgressCallback = Callable[[str], None]
"""Called with a line of text for the user when a long operation starts or proceeds."""
