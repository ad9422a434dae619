"""The section ``[data]`` of a study file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticCustomError

from searchae.config.section import NotEmpty, Positive, Section

Source = Literal["svhn", "mnist", "cifar10", "house-numbers", "npz", "csv", "folder"]

SOURCES_WITHOUT_PATH = ("svhn", "mnist", "cifar10", "house-numbers")
"""Sources that need no ``path``: they are downloaded or drawn."""

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
