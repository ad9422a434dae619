"""``python -m searchae`` and the console script."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from searchae.cli import run

    code = run()
    # Python would look through all of torch for garbage, most of a second, and then go. Where
    # torch's compiler was loaded it has to: triton's bindings print what they have left behind.
    if "triton" not in sys.modules:
        gc.freeze()
    raise SystemExit(code)


if __name__ == "__main__":
    main()
