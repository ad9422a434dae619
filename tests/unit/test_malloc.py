"""Pages kept: what a process frees stays its own, for its next allocation."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import re, sys
from pathlib import Path
import numpy as np
from searchae.launch import malloc

def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

if sys.argv[1] == "keep":
    print(malloc.configure_malloc())
before = resident_mb()
block = np.full(64 << 20, 1.0, np.float32)
del block
print(resident_mb() - before)
"""


def run(how: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_stays_with_the_process() -> None:
    taken, kept_mb = run("keep")
    (left_mb,) = run("leave")
    assert taken == "True"
    assert float(left_mb) < 64
    assert float(kept_mb) > 200
