"""``python -m searchae`` and the console script."""

from __future__ import annotations

import gc


def main() -> None:
    """Runs the command line and exits with its code."""
    from searchae.cli import run

    code = run()
    gc.freeze()  # Python would look through all of torch for garbage, most of a second, and then go
    raise SystemExit(code)


if __name__ == "__main__":
    main()
