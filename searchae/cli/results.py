"""Prints the result of a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


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
