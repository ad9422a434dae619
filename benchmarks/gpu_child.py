"""A process of ``benchmarks.gpu``, which measures some cases.

    python -m benchmarks.gpu_child MODULE:FUNCTION JSON

The function gets the JSON's settings and a function ``emit``, by which it hands out each case as
soon as it is measured: one line of JSON on standard output. So a process that is killed at its time
limit has lost no more than the case that it was at.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from searchae.launch import malloc

Emit = Callable[[str, Mapping[str, Any]], None]
"""Takes a case's name, and ``{"figures": ...}`` or ``{"error": ...}``."""
Settings = Mapping[str, Any]


def attempt(emit: Emit, case: str, measure: Callable[[], Mapping[str, Any]]) -> None:
    """Measures a case and emits its figures; emits its error if it fails.

    A case that does not fit into memory is measured: its figures have a note that says so.
    """
    import torch

    try:
        figures = measure()
    except torch.OutOfMemoryError:
        figures = {"note": "out of memory"}
    except Exception as e:  # noqa: BLE001  the other cases are measured all the same
        traceback.print_exc()
        emit(case, {"error": f"{type(e).__name__}: {e}"})
        return
    emit(case, {"figures": figures})


def machine(settings: Settings, emit: Emit) -> None:
    """Emits what the measurements run on."""
    import platform

    import torch

    on_gpu = settings["device"] == "cuda"
    if on_gpu:
        about = torch.cuda.get_device_properties("cuda")
        name = f"{about.name} ({about.total_memory / 2**30:.0f} GiB)"
    figures = {
        "device": name if on_gpu else "a CPU",
        "torch": f"torch {torch.__version__}",
        "cuda": f"CUDA {torch.version.cuda}" if on_gpu else "",
        "cudnn": f"cuDNN {torch.backends.cudnn.version()}" if on_gpu else "",  # type: ignore[no-untyped-call]
        "python": f"Python {platform.python_version()}",
    }
    emit("machine", {"figures": figures})


def _main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no record

    def emit(case: str, result: Mapping[str, Any]) -> None:
        print(json.dumps({"case": case, **result}), file=out, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is open is closed
    settings = json.loads(sys.argv[2])
    if settings.get("malloc", True):
        malloc.configure_malloc()
    module, _, name = sys.argv[1].partition(":")
    getattr(importlib.import_module(f"benchmarks.{module}"), name)(settings, emit)


if __name__ == "__main__":
    _main()
