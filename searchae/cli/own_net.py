"""The option that names the code of a net of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from searchae.config import FACTORY_VARIABLE

FactoryOption = Annotated[
    str,
    typer.Option(
        metavar="FILE.py:NAME",
        envvar=FACTORY_VARIABLE,
        help="For a net of your own: its code, which is never taken from the study.",
        show_default=False,
    ),
]
