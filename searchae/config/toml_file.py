"""Reads a TOML file, and says what is usually meant where it is not valid."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searchae.errors import SpecError

MOST_BYTES = 1 << 20
"""Size of the largest file that is read: a study file has a few hundred bytes."""

_HINTS = (
    ("[“”„‘’«»]", 'write straight quotes: "'),  # noqa: RUF001
    ("[\u00a0\u2007\u200b\u202f\ufeff]", "it holds a blank that is none: type the line anew"),
    (r'^[\[{]?\s*"[^"]*"\s*:', 'a study file is TOML, not JSON: [data], below it name = "svhn"'),
    (r"=.*\bTrue\b|=.*\bFalse\b", "write true and false in lower case"),
    (r"=.*\b(None|null|nil)\b", "TOML has no such value: leave the key out"),
    (r'=\s*"[A-Za-z]:\\|=\s*"[^"]*\\', "write a path with backslashes in single quotes"),
    (r"^\s*//|^\s*;", "a comment begins with #"),
    (r"^\s*[\w.]+\s*:", "write key = value"),
    (r'^[^"#]*"[^"]*$', "a quote is missing"),
    (r"=\s*(#.*)?$", "a value is missing"),
    (r"=\s*\d+,\d+\s*([,}].*)?(#.*)?$", "write a decimal point, not a comma"),
    (r"\{[^{}]*,\s*\}", "leave out the comma before the closing brace"),
    (r"=\s*\{[^{}]*$", "write braces and what is in them on one line"),
    (r"^\s*\[[^\]]*$", "a closing bracket is missing"),
    (r"=\s*[+-]?0\d", "a number has no zeros in front"),
    (r"=\s*[A-Za-z_][\w+./-]*\s*(#.*)?$", "a text needs quotes"),
)
"""Pattern of a line with a mistake -> what to write."""


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Args:
        path: The file.

    Raises:
        SpecError: It cannot be read, is larger than a study file can be, or is not valid TOML.
    """
    text = read_toml_text(path)
    try:
        return tomllib.loads(text)
    except RecursionError as e:
        raise SpecError(f"{path}: not a study file: its lists or tables are nested too deep") from e
    except tomllib.TOMLDecodeError as e:
        raise SpecError(f"{path}: not valid TOML: {e}", *_hint(str(e), text)) from e
    except ValueError as e:
        raise SpecError(f"{path}: not a study file: a number has thousands of digits") from e


def read_toml_text(path: Path) -> str:
    """Reads the text of a TOML file, valid or not.

    Args:
        path: The file.

    Raises:
        SpecError: It cannot be read, or is larger than a study file can be.
    """
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "a pipe or a device"
            raise SpecError(f"{path}: is {what}, not a regular file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SpecError(f"{path}: larger than {MOST_BYTES >> 20} MiB: not a study file")
        return content.decode("utf-8-sig")  # Windows editors begin UTF-8 files with a mark
    except OSError as e:
        raise SpecError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise SpecError(f"{path}: cannot be read: it is not UTF-8; save it as UTF-8") from e


def _hint(error: str, text: str) -> list[str]:
    """Returns the line of an error and what is usually meant by it, as far as that is known."""
    at = re.search(r"at line (\d+)", error)
    if at is None:
        return []
    line = text.split("\n")[int(at.group(1)) - 1].strip()
    if "Cannot overwrite" in error or "Cannot declare" in error:
        return [f"  {line[:120]}", "  it stands twice: leave one of them out"]
    for pattern, hint in _HINTS:
        if re.search(pattern, line):
            return [f"  {line[:120]}", f"  {hint}"]
    return [f"  {line[:120]}"] if line else []


def toml_value(value: Any) -> str:
    """Returns a value as TOML on one line.

    Args:
        value: A mapping, in which None is left out, a list, a text, a number or a bool.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    # TOML writes strings, numbers and booleans as JSON does, but for one control character.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.replace("e-0", "e-") if isinstance(value, float) else text  # 1e-5, not 1e-05
