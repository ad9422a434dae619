"""What a file is that holds something else than its source reads, by its first bytes."""

from __future__ import annotations

import re

START_BYTES = 4096
"""As much of a file's start as decides."""

_FORMATS = (
    (re.compile(rb"PK\x03\x04"), "a zip archive, as Excel's files are: unpack it"),
    (re.compile(rb"BZh[1-9]1AY&SY"), "compressed by bzip2: unpack it"),
    (re.compile(rb"\xfd7zXZ\x00"), "compressed by xz: unpack it"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "compressed by zstd: unpack it"),
    (re.compile(rb"PAR1.*\x00", re.DOTALL), "a Parquet file"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"MATLAB 5\.0 MAT-file"), "a file of MATLAB"),
    (re.compile(rb"\x93NUMPY"), "an array of numpy: save it with numpy.savez, as an npz"),
    (
        re.compile(rb"version https://git-lfs"),
        "a pointer of Git LFS instead of the file: fetch it with `git lfs pull`",
    ),
    (
        re.compile(rb"\s*<(!doctype\s+html|html|head|\?xml)", re.IGNORECASE),
        "a web page or XML, as a download that failed leaves it: fetch it again",
    ),
    (
        re.compile(rb"(\s*%[^\n]*\n)*\s*@relation\b", re.IGNORECASE),
        "an ARFF file of Weka: remove the lines up to @data",
    ),
    (re.compile(rb"\s*[\[{]"), "JSON"),
)


def other_format(start: bytes) -> str:
    """Names what a file holds, and what to do; empty for what is not known.

    Args:
        start: Its first bytes.
    """
    start = start[:START_BYTES]
    return next((what for magic, what in _FORMATS if magic.match(start)), "")
