"""The base of the sections of a study file, and the types of values that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

MOST = 2**31 - 1
"""Largest whole number: what is larger is a slip, and overflows in a library underneath."""

Positive = Annotated[int, Field(ge=1, le=MOST)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]


def _refuse_empty(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "must not be empty")
    return text


NotEmpty = Annotated[str, AfterValidator(_refuse_empty)]


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


def jsonable(value: Any) -> Any:
    """Converts a value to JSON's types: sections to dicts, tuples to lists."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {k: jsonable(v) for k, v in value.items()}
    return [jsonable(v) for v in value] if isinstance(value, list | tuple) else value
