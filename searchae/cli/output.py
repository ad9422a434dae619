"""Prints the result of a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def print_result(
    as_json: bool, document: Callable[[], Mapping[str, Any]], text: Callable[[], None]
) -> None:
    """Prints a result on stdout.

    Args:
        as_json: Whether to print one JSON object.
        document: Returns the object.
        text: Prints the result as text.
    """
    if as_json:
        print(json.dumps(document(), default=str))
    else:
        text()
