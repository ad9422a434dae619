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
    """Refuses a file whose name promises something other than an HTML page.

    Args:
        out: The value of ``--out``, if it was given.

    Raises:
        UserError: The name ends with the suffix of another format.
    """
    if out is not None and out.suffix.lower() not in ("", ".html", ".htm"):
        raise UserError(f"--out {out}: it is an HTML page: {out.with_suffix('.html')}")
