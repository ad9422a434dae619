"""Prints the result of a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from searchae.errors import UserError


def print_result(
    document: Callable[[], Mapping[str, Any]], text: Callable[[], None], *, as_json: bool
) -> None:
    """Prints a result on stdout.

    Args:
        document: Returns the result as a JSON object.
        text: Prints the result as text.
        as_json: Which of the two to use.
    """
    if as_json:
        print(json.dumps(document(), default=str))
    else:
        text()


def require_html(out: Path | None) -> None:
    """Refuses a page whose name promises another format; see ``require_suffix``."""
    require_suffix("--out", out, "an HTML page", ".html", ".htm")


def require_suffix(option: str, path: Path | None, what: str, *suffixes: str) -> None:
    """Refuses a file whose name promises something other than what is written.

    Args:
        option: The option that names it.
        path: The option's value, if it was given.
        what: What is written.
        suffixes: How a file with that is named; one without a suffix, too.

    Raises:
        UserError: The name ends with the suffix of another format.
    """
    if path is None or path.suffix.lower() in ("", *suffixes):
        if path is not None and str(path) == "-":
            raise UserError(f"{option} -: for standard output write /dev/stdout")
        return
    raise UserError(f"{option} {path}: writes {what}: name it {path.with_suffix(suffixes[0])}")
