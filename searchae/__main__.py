"""``python -m searchae`` and the console script."""

from __future__ import annotations


def main() -> None:
    """Runs the command line and exits with its code."""
    from searchae.cli import run

    raise SystemExit(run())


if __name__ == "__main__":
    main()
