"""The sections of a study file: their keys, types, defaults and bounds.

Any value under ``[model]`` or ``[train]`` may instead be a range
(``{ low = 1e-5, high = 1e-1, log = true }``) or a list of choices (``{ choices = [...] }``), which
makes it a searched parameter. ``ModelParams`` and ``TrainParams`` hold the values of one trial,
after each range has been replaced by a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
)
from pydantic_core import PydanticCustomError

from searchae.config.data_spec import DataSpec
from searchae.config.search_spec import SearchSpec
from searchae.config.section import NotEmpty, NotNegative, Positive, Section

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


ProgressCallback = Callable[[str], None]
"""Called with a line of text for the user when a long operation starts or proceeds."""
