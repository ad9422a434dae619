"""Values and whole studies as the TOML text of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchae.config.toml_file import toml_value


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
