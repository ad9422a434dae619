"""Values and whole studies as the TOML text of a study file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def study_toml(document: Mapping[str, Any]) -> str:
    """Returns TOML with the plain keys first, then a section for each mapping.

    Args:
        document: As ``StudySpec.document`` returns it; None values are left out.
    """
    plain = {k: v for k, v in document.items() if not isinstance(v, Mapping)}
    sections = {k: v for k, v in document.items() if isinstance(v, Mapping)}
    parts = [_lines(plain), *(f"[{name}]\n{_lines(keys)}" for name, keys in sections.items())]
    return "\n\n".join(p for p in parts if p) + "\n"


def _lines(keys: Mapping[str, Any]) -> str:
    return "\n".join(f"{k} = {toml_value(v)}" for k, v in keys.items() if v is not None)


def toml_value(value: Any) -> str:
    """Returns a value as JSON has it, on one line; None within a table is left out."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    # TOML writes strings, numbers and booleans as JSON does, but for one control character.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.replace("e-0", "e-") if isinstance(value, float) else text  # 1e-5, not 1e-05
