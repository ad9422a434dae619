"""The option ``--track`` of the commands that search and train."""

from __future__ import annotations

from typing import Annotated

import typer

TrackOption = Annotated[
    str,
    typer.Option(
        "--track",
        metavar="mlflow|wandb",
        help="Show the trials in MLflow or W&B too; the address and the login come from their "
        "own environment variables.",
        show_default=False,
    ),
]
