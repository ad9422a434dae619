"""What the ssh launcher asks each host's Python before anything starts. Sent there as text."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

CONNECT_S = 10
GPU_FILES = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/kfd", "/dev/dxg")


def version() -> str:
    """Returns the version of searchae, or an empty text if it is not installed."""
    try:
        import searchae
    except ImportError:
        return ""
    return str(getattr(searchae, "__version__", ""))  # a mere folder of that name has none


def missing(needs: list[str]) -> list[str]:
    """Returns the packages without which no worker starts, and those of ``needs``."""
    from importlib.util import find_spec

    needed = ("numpy", "optuna", "psycopg", "pydantic", "scipy", "sqlalchemy", "torch", "typer")
    return [name for name in (*needed, *needs) if find_spec(name) is None]


def gpus() -> int:
    """Returns the number of GPUs that torch can use."""
    if not any(map(os.path.exists, GPU_FILES)):  # importing torch takes seconds
        return 0
    try:
        import torch

        return int(torch.cuda.device_count())
    except (ImportError, OSError):
        return 0


def database(parameters: dict[str, Any]) -> str:
    """Returns why the database cannot be reached from here; an empty text if it can."""
    try:
        import psycopg
    except ImportError:
        return ""  # what is missing is said elsewhere
    try:
        with psycopg.connect(**parameters, connect_timeout=CONNECT_S) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as e:
        return " ".join(str(e).split())
    return ""


def main() -> None:
    """Answers on standard output; the database's parameters come on standard input."""
    request = json.loads(sys.stdin.read())
    found: dict[str, Any] = {
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "searchae": version(),
        "missing": missing(request.get("needs", [])),
        "gpus": 0,
        "database": None,
    }
    if not found["missing"]:
        found["gpus"] = gpus()
    if request["database"] is not None:
        found["database"] = database(request["database"])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
