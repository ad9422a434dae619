"""Options that several commands have; those of one command are in its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from searchae.files import artifact_path

DEFAULT_STORAGE = "sqlite:///searchae.db"
MOST_THREADS = 1024
"""CPU threads of a worker: with many more PyTorch crashes."""

StudyOption = Annotated[
    str,
    typer.Option(
        "--study", "-s", metavar="STUDY", help="A study file's name (svhn), or a path to one."
    ),
]
StudyNameOption = Annotated[
    str, typer.Option("--study", "-s", metavar="STUDY", help="The study's name.")
]
StorageOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="SEARCHAE_STORAGE",
        show_envvar=True,
        show_default=DEFAULT_STORAGE,
        help="Database: sqlite:///FILE, postgresql://USER@HOST/DB, or managed: a PostgreSQL that "
        "is started here, with its data in ./searchae-postgres.",
    ),
]
DataDirOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        envvar="SEARCHAE_DATA_DIR",
        help="Folder of the data sets; missing ones are fetched to it.",
    ),
]
ArtifactsOption = Annotated[
    Any,  # an ArtifactPath: Typer takes no union
    typer.Option(
        metavar="DIR|URL",
        envvar="SEARCHAE_ARTIFACTS",
        parser=artifact_path,
        help="Checkpoints and logs; shared by all workers. Or s3://BUCKET/PREFIX.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(metavar="DEVICE", envvar="SEARCHAE_DEVICE", help="auto, cpu, cuda or cuda:N.")
]
_PRECISION = "auto: bf16 on a CPU with AMX, else fp32."
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="fp32|bf16|auto",
        envvar="SEARCHAE_PRECISION",
        help=_PRECISION,
    ),
]
RecordedPrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="fp32|bf16|auto",
        envvar="SEARCHAE_PRECISION",
        help=_PRECISION,
        show_default="the trial's in the search",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def threads_option(text: str, *, show_default: str) -> Any:
    """Returns the option ``--threads`` of a command.

    Args:
        text: What the threads are for.
        show_default: How many there are without it, as a text.
    """
    return typer.Option(
        metavar="N",
        min=1,
        max=MOST_THREADS,
        envvar="SEARCHAE_THREADS",
        help=text,
        show_default=show_default,
    )


def examples(*commands: str) -> str:
    """Returns the epilog of a command's help: example commands, one per line."""
    unwrapped = "\b"  # tells click to keep the line breaks of the paragraph
    return "\n".join((unwrapped, "Examples:", *(f"  {command}" for command in commands)))
