"""The option ``--notify`` of the commands that train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

VARIABLE = "SEARCHAE_NOTIFY"

NotifyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--notify",
        metavar="URL",
        envvar=VARIABLE,
        show_envvar=True,
        help="Send notices of the end, faults and new best trials: a URL of apprise, such as "
        "ntfy://TOPIC; repeatable. In the variable no other user sees it.",
    ),
]


def take_urls(given: Sequence[str] | None) -> Sequence[str]:
    """Returns the URLs, and takes the variable away: workers, and what shows them, need none."""
    os.environ.pop(VARIABLE, None)
    return given or ()
