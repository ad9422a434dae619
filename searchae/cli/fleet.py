"""The options that say how many workers train, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from searchae.cli.options import threads_option

MaxHoursOption = Annotated[
    float | None,
    typer.Option(
        metavar="HOURS",
        help="Stop all workers after this many hours; each ends its epoch first.",
        show_default="no limit",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Processes at once.",
        show_default="one a GPU, else one a core up to 4",
    ),
]
WorkersPerDeviceOption = Annotated[
    str, typer.Option(metavar="N|auto", help="Workers that share a GPU; auto: measured, up to 8.")
]
ThreadsOption = Annotated[
    int | None,
    threads_option(
        "CPU threads of each worker.", show_default="the cores, shared out among the workers"
    ),
]
LauncherOption = Annotated[str, typer.Option(metavar="local|ray|slurm", help="Where workers run.")]
RayAddressOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="Ray cluster: HOST:PORT; auto: the one here, else a new one; local: a new one.",
    ),
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="An sbatch option, such as partition=gpu; repeatable."),
]

NumberPerDeviceOption = Annotated[
    int, typer.Option("--workers-per-device", metavar="N", min=1, help="Workers that share a GPU.")
]
