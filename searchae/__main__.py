"""Entry point of ``python -m searchae`` and of the ``searchae`` script."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from searchae.cli import run

    code = run()
    # The garbage collection at exit goes through all of torch, for most of a second. It must happen
    # if torch's compiler was loaded: triton's bindings otherwise print warnings of leaked objects.
    if "triton" not in sys.modules:
        gc.freeze()
    raise SystemExit(code)


if __name__ == "__main__":
    main()
