"""``python -m searchae.launch.logged LOG COMMAND...``: runs a command whose output goes to a log.

A shell's ``>>`` would follow a link that somebody else has put in the log's place.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from searchae.launch.logs import open_log


def main() -> None:
    """Appends this process's output to the log, and becomes the command."""
    path, *command = sys.argv[1:]
    try:
        log = open_log(Path(path))
    except OSError as e:
        raise SystemExit(f"{path}: cannot be written: {e.strerror or e}") from e
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
