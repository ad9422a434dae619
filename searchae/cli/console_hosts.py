"""Shows the hosts of the ssh launcher after their check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchae.cli.terminal import SafeConsole

if TYPE_CHECKING:
    from searchae.launch import HostState


def print_hosts(states: Sequence[HostState]) -> None:
    """Prints a table of the hosts on stderr.

    Args:
        states: The hosts.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("host", "workers", "searchae", "cores", "GPUs", "free memory", "database"):
        numeric = name in ("workers", "cores", "GPUs", "free memory")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    table.add_column("images")
    for state in states:
        table.add_row(*_cells(state))
    console = SafeConsole(stderr=True)
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def _cells(state: HostState) -> list[str]:
    found = state.found
    if not found:
        return [state.host.target, "-", "unreachable", *("-" for _ in range(5))]
    version = found["searchae"] or "none"
    python = f" (Python {found['python_version']})" if found["python"] else ""
    images = f"in {found['data']}, shared"
    if not state.shares("data"):
        images = f"sent to {found['data']} ({_gigabytes(found['free'])} free)"
    return [
        state.host.target,
        str(state.workers) if state.fits else "-",
        f"{version}{python}",
        str(found["cores"]),
        str(found["gpus"]),
        _gigabytes(found["memory"]),
        state.database or "-",
        images,
    ]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
